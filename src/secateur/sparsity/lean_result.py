"""What LEAN leaves: a model with zeros, dead channels cut, and the counts of what went."""

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.sparsity.results import SparseResult


@dataclass(frozen=True)
class Round:
    """One round of pruning.

    Args:
        asked: the fraction of kernels that was to stay.
        chains: how many chains they came from.
        filled: how many kernels were added by their own norms, no chain being left.
        kernels: how many stayed after those that had become useless went, too.
    """

    asked: float
    chains: int
    filled: int
    kernels: int


@dataclass(frozen=True, eq=False, kw_only=True)
class LeanResult(SparseResult):
    """What LEAN leaves.

    Args:
        weights: the names of the weights whose kernels could go.
        kernels: how many there were, and how many are not zero.
        maps: feature maps that these kernels make, and how many of them still have kernels.
        rounds: what each round did.
        breaks: operators through which chains were not followed.
    """

    weights: tuple[str, ...]
    kernels: tuple[int, int]
    maps: tuple[int, int]
    rounds: tuple[Round, ...]
    breaks: tuple[str, ...]

    @property
    def channels(self) -> tuple[int, int]:
        """Units before and after the cut."""
        return self.plan.network.units, sum(len(units) for units in self.plan.kept.values())

    def __str__(self) -> str:
        (dense, left), (units, stay) = self.kernels, self.channels
        cost, before = self.plan.cost, self.plan.dense
        lines = [
            f"kernels {dense:,} -> {left:,} ({left / max(dense, 1):.1%}), maps {self.maps[0]:,} -> {self.maps[1]:,}",
            f"units {units:,} -> {stay:,}, MACs {before.macs:,} -> {cost.macs:,} "
            f"({cost.macs / max(before.macs, 1):.1%})",
            *(f"  asked {r.asked:.1%}: {r.chains} chains, {r.filled} by norm, {r.kernels:,} left" for r in self.rounds),
        ]
        return "\n".join([*lines, *(f"  chains end at {name}" for name in self.breaks)])

    def _structures(self) -> Mapping[str, str]:
        return {name: "kernels" for name in self.weights if self.model.get_parameter(name).numel()}

    def _ratios(self) -> Mapping[str, float]:
        (dense, left), (maps, alive) = self.kernels, self.maps
        return {"kernels": dense / max(left, 1), "feature maps": maps / max(alive, 1)}

    def _notes(self) -> tuple[str, ...]:
        return tuple(str(self).splitlines())
