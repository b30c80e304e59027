"""How long something may take in all, and what is left out so that it takes no longer."""

import time
from collections.abc import Callable


class TimeBudget:
    """Seconds for a whole run, and what was left out of it.

    Args:
        seconds: None for as many as it takes.
        clock: what tells the time, in seconds.

    Example:
        >>> budget = TimeBudget(10, clock=lambda: 0.0)
        >>> budget.is_spent(0.5), budget.left_out
        (False, ())
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._start = clock()
        self._left_out: dict[str, None] = {}

    def is_spent(self, share: float = 1.0, ahead: float = 0.0) -> bool:
        """Whether this share of the budget has passed, or will have in so many seconds."""
        return self.seconds is not None and self.elapsed + ahead >= share * self.seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the budget was made."""
        return self._clock() - self._start

    def leave_out(self, what: str) -> None:
        """Note what is left out for want of time."""
        self._left_out[what] = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out for want of time, in order."""
        return tuple(self._left_out)
