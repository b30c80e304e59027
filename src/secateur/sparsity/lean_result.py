"""The result of LEAN: a model with zeros, dead channels cut, and the counts of what was removed."""

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.options.call_checks import checked_calls
from secateur.sparsity.results import SparseResult


@dataclass(frozen=True)
class Round:
    """One round of pruning.

    Args:
        asked: the fraction of kernels to keep.
        chains: the number of chains that they came from.
        filled: the number of kernels added by their own norms, when no chain remained.
        kernels: the number of kernels kept after useless ones were removed as well.
    """

    asked: float
    chains: int
    filled: int
    kernels: int


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LeanResult(SparseResult):
    """A model with pruned kernels at zero, without dead channels.

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
        (dense, remaining), (units, kept_units) = self.kernels, self.channels
        cost, before = self.plan.cost, self.plan.dense
        lines = [
            f"kernels {dense:,} -> {remaining:,} ({remaining / max(dense, 1):.1%}), "
            f"maps {self.maps[0]:,} -> {self.maps[1]:,}",
            f"units {units:,} -> {kept_units:,}, MACs {before.macs:,} -> {cost.macs:,} "
            f"({cost.macs / max(before.macs, 1):.1%})",
            *(f"  asked {r.asked:.1%}: {r.chains} chains, {r.filled} by norm, {r.kernels:,} left" for r in self.rounds),
        ]
        return "\n".join([*lines, *(f"  chains end at {name}" for name in self.breaks)])

    def _structures(self) -> Mapping[str, str]:
        return {name: "kernels" for name in self.weights if self.model.get_parameter(name).numel()}

    def _ratios(self) -> Mapping[str, float]:
        (dense, remaining), (maps, alive) = self.kernels, self.maps
        return {"kernels": dense / max(remaining, 1), "feature maps": maps / max(alive, 1)}

    def _notes(self) -> tuple[str, ...]:
        return tuple(str(self).splitlines())
