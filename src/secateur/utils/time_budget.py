"""A budget of seconds for a run, and the steps that were skipped to meet it."""

import time
from collections.abc import Callable

from secateur.utils.distributed import broadcast_if_shared


class TimeBudget:
    """A budget of seconds for a run; where processes share it, the clock of the first one counts.

    Args:
        seconds: the budget; None for no limit.
        clock: returns the time in seconds.

    Examples:
        >>> budget = TimeBudget(10, clock=lambda: 0.0)
        >>> budget.is_spent(0.5), budget.left_out
        (False, ())
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._start = clock()
        self._required = 0.0  # seconds that steps took which can't be left out
        self._left_out: dict[str, None] = {}

    def divide_rest(self) -> None:
        """Let shares be those of the time that is left, as what has elapsed can't be saved.

        Examples:
            >>> now = [0.0]
            >>> budget = TimeBudget(10, clock=lambda: now[0])
            >>> now[0] = 6.0
            >>> budget.is_spent(0.5)
            True
            >>> budget.divide_rest()
            >>> budget.is_spent(0.5), budget.is_spent(0.5, ahead=2)
            (False, True)
        """
        if self.seconds is not None:
            self._required = min(self.elapsed, self.seconds)

    def is_spent(self, share: float = 1.0, ahead: float = 0.0) -> bool:
        """Return whether this share of the budget has elapsed, or will have elapsed in `ahead` seconds."""
        if self.seconds is None:
            return False
        return self.elapsed + ahead >= self._required + share * (self.seconds - self._required)

    @property
    def elapsed(self) -> float:
        """Seconds since the budget was created."""
        if self.seconds is None:
            return self._clock() - self._start
        return broadcast_if_shared(lambda: self._clock() - self._start, "the time so far")

    def leave_out(self, step: str) -> None:
        """Record a step that is skipped to meet the budget."""
        self._left_out[step] = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The steps that were skipped, in order."""
        return tuple(self._left_out)
