"""The plan of a cut: the units that stay, and what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.coupling.cost import Cost
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.coupling.network import Kept, Network
from secateur.coupling.new_biases import grown_biases
from secateur.utils.text_table import align_columns

Budget = Mapping[str, float]


@dataclass(frozen=True)
class MetricChange:
    """The change of the loss or the accuracy on examples held out, beside its bound.

    Args:
        unit: "loss" or "accuracy".
        asked: the most it may change by.
        mean: the change, with `low` and `high` the ends of its 95 % interval, by the normal approximation.
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
        """Whether the bound is kept."""
        return self.mean <= self.asked if self.unit == "loss" else self.mean >= self.asked

    def __str__(self) -> str:
        return (
            f"{self.unit} changes by {self.mean:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f}) on "
            f"{self.examples} examples held out, where {self.asked:+g} was allowed"
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """What stays of a network.

    Args:
        network: the traced network.
        kept: original indices of the units that stay, by group, ascending.
        means: what stands in the place of removed units: the mean input of each reader, or nothing for zero.
        cost: of the plan, and `dense` of the whole network.
        keep: the budget that was asked for.
        effective: MACs with channels counted up to what the device's kernels work on at once.
        notes: what was decided for the device, and why.
        change: of the loss or the accuracy, where the budget is a bound on it.
    """

    network: Network
    kept: Kept
    means: Mapping[str, Tensor]
    cost: Cost
    dense: Cost
    keep: Budget
    effective: EffectiveMacs | None = None
    notes: tuple[str, ...] = ()
    change: MetricChange | None = None

    @property
    def new_biases(self) -> tuple[str, ...]:
        """The biases that layers without one get for the means of removed units."""
        return tuple(grown_biases(self.network, self.network.mask(self.kept))) if self.means else ()

    def __str__(self) -> str:
        rows = [["", "dense", "plan", "left"]]
        for unit in ("params", "macs", "bytes"):
            before, after = getattr(self.dense, unit), getattr(self.cost, unit)
            rows.append([unit, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}"])
        rows += effective_rows(self.effective)
        rows.append(["", "", "", ""])
        block_names = [
            f"left out: {', '.join(path for at, path in enumerate(group.places) if at not in self.kept[group.name])}"
            for group in self.network.groups
            if group.name in self.kept and len(self.kept[group.name]) < len(group.places)
        ]
        rows += [
            [
                group.name,
                str(group.size),
                str(len(self.kept[group.name])),
                f"{len(self.kept[group.name]) / group.size:.0%}",
            ]
            for group in self.network.groups
            if group.name in self.kept
        ]
        return "\n".join([*align_columns(rows), *block_names, *bias_lines(self.new_biases), *self._remarks()])

    def _remarks(self) -> list[str]:
        return [*self.notes, *([] if self.change is None else [str(self.change)])]


def effective_rows(effective: EffectiveMacs | None) -> list[list[str]]:
    """Effective MACs as a row beside the plain ones; none where the device takes any number of channels."""
    if effective is None or effective.step == 1:
        return []
    share = f"{effective.left / max(effective.dense, 1):.1%}"
    return [[f"macs in steps of {effective.step}", f"{effective.dense:,}", f"{effective.left:,}", share]]


def bias_lines(names: Sequence[str]) -> list[str]:
    """What a reader should know of new biases, in words; nothing where there are none."""
    if not names:
        return []
    return [f"biases that are new, for the means of removed units: {', '.join(names)}"]
