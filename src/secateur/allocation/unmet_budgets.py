"""Budgets that can't be met, with what can be reached in the units of the budget."""

import math
from collections.abc import Mapping

from secateur.allocation.budget import LATENCY, MILLISECONDS, SPEEDUP, timed_phase
from secateur.coupling.plan import Budget
from secateur.errors import BudgetError


class UnmetBudgetError(BudgetError):
    """A budget can't be met.

    Args:
        message: the message.
        reachable: the smallest fractions of the dense network that can be reached, of the units that are missed.
        numbers: the same in absolute numbers, in words.
        groups: how many groups may lose units, in words.
    """

    def __init__(
        self, message: str, reachable: Mapping[str, float] | None = None, numbers: str = "", groups: str = ""
    ) -> None:
        super().__init__(message)
        self.reachable, self.numbers, self.groups = dict(reachable or {}), numbers, groups

    @staticmethod
    def of(
        keep: Budget, reachable: Mapping[str, float], numbers: str, groups: str, dense_ms: float | None = None
    ) -> "UnmetBudgetError":
        """Return the error for a budget.

        Args:
            keep: the budget.
            reachable: the smallest fractions that can be reached.
            numbers: the same in absolute numbers, in words.
            groups: how many groups may lose units, in words.
            dense_ms: the milliseconds of the dense network, for a budget in milliseconds.
        """
        smallest = ", ".join(_reachable_text(keep, unit, value, dense_ms) for unit, value in reachable.items())
        message = (
            f"keep={dict(keep)} can't be met: the smallest reachable is {smallest}{numbers} with {groups}, floor, "
            "round_to and sizes as given; ask for more, lower the floor, or see what is frozen with print(network)"
        )
        return UnmetBudgetError(message, reachable, numbers, groups)

    def in_units_of(self, keep: Budget, dense_ms: float) -> "UnmetBudgetError":
        """Return the same error for the budget as the user gave it, whose time may be a speedup or milliseconds."""
        return UnmetBudgetError.of(keep, self.reachable, self.numbers, self.groups, dense_ms)


def _reachable_text(keep: Budget, unit: str, fraction: float, dense_ms: float | None) -> str:
    """Return what can be reached in the unit of a budget."""
    if unit == LATENCY and SPEEDUP in keep:
        return f"{SPEEDUP} {math.floor(100 / max(fraction, 1e-9)) / 100:g}"
    if unit == LATENCY and MILLISECONDS in keep and dense_ms is not None:
        return f"{MILLISECONDS} {_round_up(fraction * dense_ms, 1e3):g}"
    name = (timed_phase(keep) or unit) if unit == LATENCY else unit
    return f"{name} {_round_up(fraction, 1e4):g}"


def _round_up(value: float, digits: float) -> float:
    return math.ceil(value * digits) / digits
