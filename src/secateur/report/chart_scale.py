"""Scales of charts: from values to positions, and round numbers for ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis.

    Args:
        at: its position.
        text: its number.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to positions.

    Args:
        low: the least value.
        high: the greatest value, larger than `low`.
        start: the position of `low`.
        end: the position of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def position(self, value: float) -> float:
        """Return the position of a value, to a tenth."""
        fraction = (value - self.low) / (self.high - self.low)
        return round(self.start + fraction * (self.end - self.start), 1)

    def ticks(self, values: Sequence[float], suffix: str = "", factor: float = 1) -> list[Tick]:
        """Return ticks at values, with the digits that tell them apart.

        Args:
            values: the values.
            suffix: what follows each number, such as " %".
            factor: by which values are multiplied in the text.
        """
        return [Tick(self.position(value), f"{factor * value:.6g}{suffix}") for value in values]


def round_values(low: float, high: float, count: int = 4) -> list[float]:
    """Return round values from one at or below `low` to one at or above `high`, in about `count` steps.

    Examples:
        >>> round_values(0.03, 0.92)
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> round_values(-3.2, 0)
        [-4.0, -3.0, -2.0, -1.0, 0.0]
        >>> round_values(2, 2)
        [2.0, 2.25, 2.5, 2.75, 3.0]
    """
    span = (high - low) or max(abs(low), 1.0) / 2
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in STEPS if factor * power >= rough * (1 - 1e-9))
    first_step = math.floor(low / step + 1e-9)
    last_step = max(math.ceil((low + span) / step - 1e-9), first_step + 1)
    return [float(f"{index * step:.12g}") for index in range(first_step, last_step + 1)]
