"""Stopping rules by statistics of the blocks: standard errors, rank correlations, and differences at the boundary."""

from dataclasses import dataclass

import torch

from secateur.errors import BudgetError
from secateur.importance.shapley.stopping import MIN_BLOCKS, EstimateState, Rule, check_positive
from secateur.options.call_checks import checked_calls


@checked_calls
@dataclass(frozen=True)
class StandardError(Rule):
    """Stop when the largest standard error is at most this fraction of the spread of the units' scores."""

    relative: float
    heuristic = "the errors are themselves estimates, examined repeatedly"

    def __post_init__(self) -> None:
        check_positive(self.relative, "relative error")

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        if not state.is_estimable:
            return len(state.replicates) / MIN_BLOCKS
        spread = state.values.var() - state.errors.square().mean()  # without what the errors add to it
        ratio = state.errors.max().square() / spread.clamp_min(1e-300)
        return float(self.relative**2 / ratio.clamp_min(1e-300))

    def __str__(self) -> str:
        return f"a largest standard error of {self.relative:g} of the spread of the scores"


@checked_calls
@dataclass(frozen=True)
class Stable(Rule):
    """Stop when the rankings by the odd and by the even blocks agree to this rank correlation."""

    correlation: float = 0.9
    heuristic = "a ranking that no longer changes need not be right"

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        from scipy import stats

        if not state.is_estimable:
            return len(state.replicates) / MIN_BLOCKS * 0.99
        halves = [state.replicates[start::2].mean(0) for start in (0, 1)]
        are_constant = [bool((half == half[0]).all()) for half in halves]
        if any(are_constant):  # units that are all worth the same, such as dead ones, have no ranking
            return float(all(are_constant))
        return max(float(stats.spearmanr(*halves).statistic), 0.0) / self.correlation

    def __str__(self) -> str:
        return f"a rank correlation of {self.correlation:g} between the scores by two halves of the samples"


@checked_calls
@dataclass(frozen=True)
class SelectionConfident(Rule):
    """Stop when it is clear which units are removed: those at the boundary differ, each pair with this confidence.

    The highest of the removed units is compared with all that are kept, and the lowest of the kept units with all that
    are removed, by paired differences between the same blocks. Units that are worth the same in every block, such as
    dead ones, are as good as each other.

    Args:
        keep: the fraction of each group that is kept.
        confidence: the confidence of each comparison.
    """

    keep: float
    confidence: float = 0.95
    heuristic = "the confidence is that of one pair, examined repeatedly; that of all pairs together is lower"

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or not 0 < self.confidence < 1:
            raise BudgetError(f"keep={self.keep} and confidence={self.confidence} must lie between 0 and 1")

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        from scipy.special import stdtrit  # a quarter of the time that `scipy.stats` takes to be imported

        blocks, removed = len(state.replicates), round((1 - self.keep) * len(state.values))
        if blocks < MIN_BLOCKS or not 0 < removed < len(state.values):
            return blocks / MIN_BLOCKS
        order = state.values.argsort()
        low, high = state.replicates[:, order[:removed]], state.replicates[:, order[removed:]]
        gaps = torch.cat([high - low[:, -1:], high[:, :1] - low], 1)
        gaps = gaps[:, gaps.any(0)]
        if not gaps.shape[1]:
            return 1.0
        ratio = gaps.mean(0) / (gaps.std(0) / blocks**0.5).clamp_min(1e-300)
        return float(ratio.min() / stdtrit(blocks - 1, self.confidence)) ** 2

    def __str__(self) -> str:
        return f"{self.confidence:.0%} confidence in each pair at the boundary of the lowest {1 - self.keep:.0%}"
