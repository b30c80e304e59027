"""Stopping rules for sampled estimates, which compose with `&` and `|`.

A rule examines one group after some of its blocks. Its statistics are noisy, and it examines them again and again, so
rules that promise more than a count or a time are heuristics, and their `heuristic` attribute says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
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
        select = min if self.operator == "&" else max
        return select(self.first.progress(state), self.second.progress(state))

    @property
    def heuristic(self) -> str:  # type: ignore[override]
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
        return state.coalitions / self.number


class Seconds(Limit):
    """Stop after so many seconds for all groups together. The scores then depend on the machine."""

    quantity = "seconds"

    def progress(self, state: EstimateState) -> float:
        return state.elapsed(self.number)


class Evaluations(Limit):
    """Stop after so many evaluations of each group: a coalition on one example is one, with its gradient three."""

    quantity = "evaluations"

    def progress(self, state: EstimateState) -> float:
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
        return state.evaluations * self.depth / (self.number * len(state.values))

    def __str__(self) -> str:
        return f"{self.number:g} evaluations per unit, more in later layers"


@dataclass(frozen=True)
class StandardError(Rule):
    """Stop when the largest standard error is at most this fraction of the spread of the units' scores."""

    relative: float
    heuristic = "the error is judged by its own estimate, again and again"

    def __post_init__(self) -> None:
        if not self.relative > 0:
            raise BudgetError(f"{self.relative} is not a relative error; give more than 0")

    def progress(self, state: EstimateState) -> float:
        if not state.is_estimable:
            return len(state.replicates) / MIN_BLOCKS
        spread = state.values.var() - state.errors.square().mean()  # without what the errors add to it
        ratio = state.errors.max().square() / spread.clamp_min(1e-300)
        return float(self.relative**2 / ratio.clamp_min(1e-300))

    def __str__(self) -> str:
        return f"errors of {self.relative:g} of the spread"


@dataclass(frozen=True)
class Stable(Rule):
    """Stop when the rankings by the odd and by the even blocks agree to this rank correlation."""

    correlation: float = 0.9
    heuristic = "a ranking that no longer changes need not be right"

    def progress(self, state: EstimateState) -> float:
        from scipy import stats

        if not state.is_estimable:
            return len(state.replicates) / MIN_BLOCKS * 0.99
        halves = (state.replicates[start::2].mean(0).numpy() for start in (0, 1))
        return max(float(stats.spearmanr(*halves).statistic), 0.0) / self.correlation

    def __str__(self) -> str:
        return f"rank correlation of {self.correlation:g} between halves"


@dataclass(frozen=True)
class SelectionConfident(Rule):
    """Stop when it is clear which units are removed: those at the boundary differ, each pair with this confidence.

    The highest of the removed units is compared with all that are kept, and the lowest of the kept units with all that
    are removed, by paired differences between the same blocks.

    Args:
        keep: the fraction of each group that is kept.
        confidence: the confidence of each comparison.
    """

    keep: float
    confidence: float = 0.95
    heuristic = "each pair has its confidence, all together have less, and it is looked at again and again"

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or not 0 < self.confidence < 1:
            raise BudgetError(f"keep={self.keep} and confidence={self.confidence} must lie between 0 and 1")

    def progress(self, state: EstimateState) -> float:
        from scipy import stats

        blocks, removed = len(state.replicates), round((1 - self.keep) * len(state.values))
        if blocks < MIN_BLOCKS or not 0 < removed < len(state.values):
            return blocks / MIN_BLOCKS
        order = state.values.argsort()
        low, high = state.replicates[:, order[:removed]], state.replicates[:, order[removed:]]
        gaps = torch.cat([high - low[:, -1:], high[:, :1] - low], 1)
        ratio = gaps.mean(0) / (gaps.std(0) / blocks**0.5).clamp_min(1e-300)
        return float(ratio.min() / stats.t.ppf(self.confidence, blocks - 1)) ** 2

    def __str__(self) -> str:
        return f"clear which {1 - self.keep:.0%} are removed ({self.confidence:.0%} each)"
