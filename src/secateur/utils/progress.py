"""The progress of a run: the stages of a public function, and the steps of the loops within them.

The run is a context variable: a loop deep inside reports to whatever public function is running, without arguments
that hand the run down to it. Outside of a run nothing is reported.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from secateur.utils.progress_reporter import reporter_for
from secateur.utils.progress_run import ProgressRun, ProgressStep

Item = TypeVar("Item")


_current: ContextVar[ProgressRun | None] = ContextVar("run", default=None)


@contextmanager
def run_shown(name: str, progress: bool | None) -> Iterator[None]:
    """Show the progress of a public function; within another one its steps are parts of that one's display.

    Args:
        name: the function's name.
        progress: True: a display on terminals and in notebooks, lines elsewhere; None: a display alone; False: nothing.
            Records are logged in any case.
    """
    outer = _current.get()
    if outer is not None and progress is not False:
        yield
        return
    run = None if outer is not None else ProgressRun(name, reporter_for(progress))
    token = _current.set(run)
    try:
        if run is None:
            yield
            return
        with run:
            yield
    finally:
        _current.reset(token)


@contextmanager
def stage(name: str, names: Sequence[str]) -> Iterator[ProgressStep]:
    """Run a stage of a public function.

    Args:
        name: the stage's name.
        names: the names of all stages.

    Examples:
        >>> with stage("cut", ("plan", "cut")) as step:
        ...     step.add_result("half of the units are removed")
    """
    run = _current.get()
    if run is None:
        yield ProgressStep(name)
        return
    with run.step(name, position=f"{names.index(name) + 1} of {len(names)}") as step:
        yield step


@contextmanager
def counted(name: str, total: float | None = None) -> Iterator[ProgressStep]:
    """Run a loop whose progress is counted by `advance`.

    Args:
        name: the loop's name.
        total: the number of its parts; None where it is unknown.
    """
    run = _current.get()
    if run is None:
        yield ProgressStep(name, total)
        return
    with run.step(name, total) as step:
        yield step


def track(items: Iterable[Item], name: str, total: int | None = None) -> Iterator[Item]:
    """Iterate over items, and report the progress.

    Args:
        items: the items.
        name: the loop's name.
        total: the number of items; by default their length, if they have one.

    Examples:
        >>> [2 * number for number in track((1, 2), "doubled")]
        [2, 4]
    """
    length = len(items) if total is None and isinstance(items, Sized) else total
    with counted(name, length) as step:
        for item in items:
            yield item
            step.advance()


def advance() -> None:
    """Count a part of the innermost loop that is running."""
    run = _current.get()
    if run is not None and run.steps:
        run.steps[-1].advance()


def debug_details(text: str) -> None:
    """Log details of the run at the level DEBUG."""
    run = _current.get()
    if run is not None:
        run.log_details(text)
