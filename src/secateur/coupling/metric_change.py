"""The change of a measure on examples held out, beside its bound."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricChange:
    """The change of the loss, the accuracy or the user's metric on examples held out, beside its bound.

    Args:
        unit: "loss", "accuracy" or "metric".
        asked: the most it may change by: a decrease where negative, an increase where positive.
        mean: the change, with `low` and `high` the ends of its 95 % interval.
        examples: how many were held out.
    """

    unit: str
    asked: float
    mean: float
    low: float
    high: float
    examples: int

    @property
    def within(self) -> bool:
        """True where the bound holds."""
        return self.mean <= self.asked if self.asked > 0 else self.mean >= self.asked

    def __str__(self) -> str:
        return (
            f"{self.unit} changes by {self.mean:+z.4f} (95 % interval {self.low:+z.4f} to {self.high:+z.4f}) on "
            f"{self.examples} examples held out, where {self.asked:+g} was allowed"
        )
