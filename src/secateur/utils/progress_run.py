"""One call of a public function, with the stages and loops that are running in it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from secateur.utils.progress_reporter import ProgressReporter


@dataclass(eq=False)
class ProgressStep:
    """A stage or a loop that is running.

    Args:
        name: the name.
        total: the number of its parts; 1.0 where a share is counted; None where it is unknown.
        position: the number of the stage among the stages of the run, such as "2 of 7"; empty for loops.
        started: the time of its start, in seconds.
        completed: the number of parts that are completed.
        results: what the stage came to, in words, for the line that ends it.
    """

    name: str
    total: float | None = None
    position: str = ""
    started: float = field(default_factory=time.monotonic)
    completed: float = 0
    results: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.position:
            return f"{self.position}, {self.name}"
        if self.total is None:
            return f"{self.name}, {self.completed:.0f} done" if self.completed else self.name
        is_share = isinstance(self.total, float)
        count = f"{self.completed:.0%}" if is_share else f"{self.completed:.0f} of {self.total}"
        return f"{self.name}, {count}"

    def advance(self, amount: float = 1) -> None:
        """Count a part that is completed."""
        self.completed += amount

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
        return step.completed, step.total, self._clock() - step.started

    def text(self) -> str:
        """Return the state of the run in one line, with the time that the outermost loop will take."""
        completed, total, seconds = self.counts()
        remaining = (
            f", about {seconds / completed * max(total - completed, 0):.0f} s left" if total and completed else ""
        )
        return f"{self.title()}, {seconds:.0f} s so far{remaining}"

    def log_details(self, text: str) -> None:
        """Log details at the level DEBUG."""
        self._reporter.debug(f"{self.title()}: {text}")
