"""Stopping rules for sampled estimates, which compose with `&` and `|`.

A rule examines one group after some of its blocks. Its statistics are noisy, and it examines them again and again, so
rules that promise more than a count or a time are heuristics, and their `heuristic` attribute says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from secateur.errors import BudgetError

MIN_BLOCKS = 4  # before a statistic of blocks is computed


@dataclass(frozen=True)
class EstimateState:
    """The state of one group's estimate.

    Args:
        coalitions: the number of coalitions evaluated so far.
        evaluations: the sum of the numbers of examples that each coalition was evaluated on.
        elapsed: a function from the seconds allowed in all to the fraction of this group's time that has passed.
        replicates: pseudo-values of the score by the jackknife, one for each block, (blocks, units).
        errors: standard errors of the scores for these examples, (units,).
    """

    coalitions: int
    evaluations: int
    elapsed: Callable[[float], float]
    replicates: Tensor
    errors: Tensor

    @cached_property
    def values(self) -> Tensor:
        """The scores, (units,)."""
        return self.replicates.mean(0)

    @property
    def is_estimable(self) -> bool:
        """True where there are enough blocks and units for statistics of them."""
        return len(self.replicates) >= MIN_BLOCKS and len(self.values) >= 2


class Rule(ABC):
    """A condition to stop. `a & b` stops when both do, `a | b` when either does.

    Attributes:
        heuristic: what the rule does not promise, in words; empty where it promises all.
    """

    heuristic: str = ""

    @abstractmethod
    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""

    def __and__(self, other: "Rule") -> "Rule":
        return CombinedRule(self, other, "&")

    def __or__(self, other: "Rule") -> "Rule":
        return CombinedRule(self, other, "|")


@dataclass(frozen=True)
class CombinedRule(Rule):
    """Two rules of which the later ("&") or the earlier ("|") one counts."""

    first: Rule
    second: Rule
    operator: str

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        select = min if self.operator == "&" else max
        return select(self.first.progress(state), self.second.progress(state))

    @property
    def heuristic(self) -> str:  # type: ignore[override]
        """The reservations of the two rules, joined."""
        return "; ".join(dict.fromkeys(rule.heuristic for rule in (self.first, self.second) if rule.heuristic))

    def __str__(self) -> str:
        return f"({self.first} {self.operator} {self.second})"


@dataclass(frozen=True)
class Limit(Rule):
    """The base of rules that stop after a number of something."""

    number: float
    quantity: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.number > 0:
            raise BudgetError(f"{self.number} is not a number of {self.quantity}; give more than 0")

    def __str__(self) -> str:
        return f"{self.number:g} {self.quantity}"


class Coalitions(Limit):
    """Stop after so many coalitions of each group."""

    quantity = "coalitions"

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.coalitions / self.number


class Seconds(Limit):
    """Stop after so many seconds for all groups together. The scores then depend on the machine."""

    quantity = "seconds"

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.elapsed(self.number)


class Evaluations(Limit):
    """Stop after so many evaluations of each group: a coalition on one example is one, with its gradient three."""

    quantity = "evaluations"

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.evaluations / self.number


@dataclass(frozen=True)
class EvaluationsPerUnit(Evaluations):
    """Stop after so many evaluations for each unit of a group, and more in later layers.

    Args:
        number: the number for a group before the whole network.
        depth: the fraction of the network's operators that come after the group.
    """

    depth: float = 1.0

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.evaluations * self.depth / (self.number * len(state.values))

    def __str__(self) -> str:
        return f"{self.number:g} evaluations per unit, more in later layers"
