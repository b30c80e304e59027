"""When an estimate is good enough: rules that compose with `&` and `|`.

A rule looks at one group after some of its blocks. What it looks at is noisy, and it looks again and again, so rules
that promise more than a count or a time are heuristics, and say so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from secateur.errors import BudgetError


@dataclass(frozen=True)
class EstimateState:
    """How far the estimate of one group has come.

    Args:
        coalitions: how many were evaluated.
        evaluations: the same, times the examples that each was evaluated on.
        elapsed: the part of the time that this group may take which has passed, by the seconds allowed in all.
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
        return self.replicates.mean(0)


class Rule(ABC):
    """When to stop. `&` waits for both rules, `|` for either.

    `progress` gives how near the end is, 1 or more when it is reached. `heuristic` says what is not promised.
    """

    heuristic: str = ""

    @abstractmethod
    def progress(self, state: EstimateState) -> float:
        """How near the end is: 1 or more when it is reached."""

    def __and__(self, other: "Rule") -> "Rule":
        return Both(self, other)

    def __or__(self, other: "Rule") -> "Rule":
        return Either(self, other)


@dataclass(frozen=True)
class Pair(Rule):
    """Two rules."""

    one: Rule
    other: Rule
    sign: ClassVar[str]

    @property
    def heuristic(self) -> str:  # type: ignore[override]
        return "; ".join(dict.fromkeys(rule.heuristic for rule in (self.one, self.other) if rule.heuristic))

    def __str__(self) -> str:
        return f"({self.one} {self.sign} {self.other})"


class Both(Pair):
    """Two rules of which the later counts."""

    sign = "&"

    def progress(self, state: EstimateState) -> float:
        return min(self.one.progress(state), self.other.progress(state))


class Either(Pair):
    """Two rules of which the sooner counts."""

    sign = "|"

    def progress(self, state: EstimateState) -> float:
        return max(self.one.progress(state), self.other.progress(state))


@dataclass(frozen=True)
class Limit(Rule):
    """After so much of something."""

    number: float
    what: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.number > 0:
            raise BudgetError(f"{self.number} is not a number of {self.what}; give more than 0")

    def __str__(self) -> str:
        return f"{self.number:g} {self.what}"


class Coalitions(Limit):
    """After so many coalitions of each group."""

    what = "coalitions"

    def progress(self, state: EstimateState) -> float:
        return state.coalitions / self.number


class Evaluations(Limit):
    """After so many evaluations of each group: a coalition on one example is one, with its gradient three."""

    what = "evaluations"

    def progress(self, state: EstimateState) -> float:
        return state.evaluations / self.number


class Seconds(Limit):
    """After so many seconds for all groups together. What was reached by then depends on the machine."""

    what = "seconds"

    def progress(self, state: EstimateState) -> float:
        return state.elapsed(self.number)


@dataclass(frozen=True)
class PerUnit(Rule):
    """After so many evaluations for each unit of a group, and more where less of the network comes after it.

    Args:
        number: for a group that all of the network comes after.
        depth: what part of the network comes after this one.
    """

    number: float
    depth: float = 1.0

    def progress(self, state: EstimateState) -> float:
        return state.evaluations * self.depth / (self.number * len(state.values))

    def __str__(self) -> str:
        return f"{self.number:g} evaluations per unit, more in later layers"


@dataclass(frozen=True)
class StandardError(Rule):
    """When the largest standard error is at most this part of the spread of the units' scores."""

    relative: float
    heuristic = "the error is judged by its own estimate, again and again"

    def __post_init__(self) -> None:
        if not self.relative > 0:
            raise BudgetError(f"{self.relative} is not a relative error; give more than 0")

    def progress(self, state: EstimateState) -> float:
        if len(state.replicates) < FEWEST or len(state.values) < 2:
            return len(state.replicates) / FEWEST
        spread = state.values.var() - state.errors.square().mean()  # what is left of it without the errors
        found = state.errors.max().square() / spread.clamp_min(1e-300)
        return float(self.relative**2 / found.clamp_min(1e-300))

    def __str__(self) -> str:
        return f"errors of {self.relative:g} of the spread"


@dataclass(frozen=True)
class Stable(Rule):
    """When the rankings by the odd and by the even blocks agree to this rank correlation."""

    correlation: float = 0.9
    heuristic = "a ranking that no longer changes need not be right"

    def progress(self, state: EstimateState) -> float:
        from scipy import stats

        if len(state.replicates) < FEWEST or len(state.values) < 2:
            return len(state.replicates) / FEWEST * 0.99
        halves = (state.replicates[part::2].mean(0).numpy() for part in (0, 1))
        found = float(stats.spearmanr(*halves).statistic)
        return max(found, 0.0) / self.correlation

    def __str__(self) -> str:
        return f"rank correlation of {self.correlation:g} between halves"


@dataclass(frozen=True)
class SelectionConfident(Rule):
    """When it is known which units go: those at the boundary differ, each pair with this confidence.

    Compared are the highest of those that go with all that stay, and the lowest of those that stay with all that go, by
    paired differences between the same blocks.

    Args:
        keep: the fraction of each group that stays.
        confidence: of each comparison.
    """

    keep: float
    confidence: float = 0.95
    heuristic = "each pair has its confidence, all together have less, and it is looked at again and again"

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or not 0 < self.confidence < 1:
            raise BudgetError(f"keep={self.keep} and confidence={self.confidence} must lie between 0 and 1")

    def progress(self, state: EstimateState) -> float:
        from scipy import stats

        blocks, gone = len(state.replicates), round((1 - self.keep) * len(state.values))
        if blocks < FEWEST or not 0 < gone < len(state.values):
            return blocks / FEWEST
        order = state.values.argsort()
        low, high = state.replicates[:, order[:gone]], state.replicates[:, order[gone:]]
        gaps = torch.cat([high - low[:, -1:], high[:, :1] - low], 1)
        ratio = gaps.mean(0) / (gaps.std(0) / blocks**0.5).clamp_min(1e-300)
        return float(ratio.min() / stats.t.ppf(self.confidence, blocks - 1)) ** 2

    def __str__(self) -> str:
        return f"known which {1 - self.keep:.0%} go ({self.confidence:.0%} each)"


FEWEST = 4
