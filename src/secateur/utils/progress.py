"""The progress of a run: the stages of a public function, and the steps of the loops within them.

The run is a context variable: a loop deep inside reports to whatever public function is running, without arguments
that hand the run down to it. Outside of a run nothing is reported.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from secateur.utils.progress_reporter import ProgressReporter, reporter_for

Item = TypeVar("Item")


@dataclass(eq=False)
class ProgressStep:
    """A stage or a loop that is running.

    Args:
        name: the name.
        total: the number of its parts; 1.0 where a share is counted; None where it is unknown.
        position: the number of the stage among the stages of the run, such as "2 of 7"; empty for loops.
        started: the time of its start, in seconds.
        done: the number of parts that are completed.
        results: what the stage came to, in words, for the line that ends it.
    """

    name: str
    total: float | None = None
    position: str = ""
    started: float = field(default_factory=time.monotonic)
    done: float = 0
    results: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.position:
            return f"{self.position}, {self.name}"
        if self.total is None:
            return f"{self.name}, {self.done:.0f} done" if self.done else self.name
        is_share = isinstance(self.total, float)
        count = f"{self.done:.0%}" if is_share else f"{self.done:.0f} of {self.total}"
        return f"{self.name}, {count}"

    def advance(self, amount: float = 1) -> None:
        """Count a part that is completed."""
        self.done += amount

    def add_result(self, text: str) -> None:
        """Add a result to the line that ends the stage."""
        self.results.append(text)


class ProgressRun:
    """One call of a public function.

    Args:
        name: the function's name.
        reporter: shows the progress.
        clock: returns the time in seconds.
    """

    def __init__(self, name: str, reporter: ProgressReporter, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self._reporter, self._clock = name, reporter, clock
        self.steps: list[ProgressStep] = []
        self._started = clock()

    def __enter__(self) -> "ProgressRun":
        self._reporter.start(self)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        seconds = self._clock() - self._started
        outcome = "took" if error is None else f"was stopped by {error.__name__} after"
        self._reporter.finish(f"{self.name} {outcome} {seconds:.1f} s", seconds)

    @contextmanager
    def step(self, name: str, total: float | None = None, position: str = "") -> Iterator[ProgressStep]:
        """Run a stage, if it has a position, or a loop."""
        depth, step = len(self.steps), ProgressStep(name, total, position, self._clock())
        title = f"{self.title()}: {step if position else name}"
        self.steps.append(step)
        self._reporter.debug(f"{title} started")
        try:
            yield step
        finally:
            del self.steps[depth:]  # with loops inside that were left early
        seconds = self._clock() - step.started
        text = "; ".join([f"{title}: {seconds:.1f} s", *step.results])
        if position:
            self._reporter.info(text, seconds)
        else:
            self._reporter.debug(text)

    def title(self) -> str:
        """Return the names of the run and of all that is running within it, with the numbers of completed parts."""
        return ": ".join([self.name, *(str(step) for step in self.steps)])

    def counts(self) -> tuple[float, float | None, float]:
        """Return the number of completed parts, of all parts, and the seconds of the outermost loop that counts."""
        step = next((step for step in self.steps if step.total), None)
        if step is None:
            return 0, None, self._clock() - self._started
        return step.done, step.total, self._clock() - step.started

    def text(self) -> str:
        """Return the state of the run in one line, with the time that the outermost loop will take."""
        done, total, seconds = self.counts()
        left = f", about {seconds / done * max(total - done, 0):.0f} s left" if total and done else ""
        return f"{self.title()}, {seconds:.0f} s so far{left}"

    def log_details(self, text: str) -> None:
        """Log details at the level DEBUG."""
        self._reporter.debug(f"{self.title()}: {text}")


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
