"""The plan of a cut: the units that are kept, and what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from secateur.coupling.cost import Cost
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.coupling.network import Group, Kept, Network
from secateur.coupling.new_biases import grown_biases
from secateur.utils.html_table import html_table
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
        """True where the bound holds."""
        return self.mean <= self.asked if self.unit == "loss" else self.mean >= self.asked

    def __str__(self) -> str:
        return (
            f"{self.unit} changes by {self.mean:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f}) on "
            f"{self.examples} examples held out, where {self.asked:+g} was allowed"
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """The units of a network that are kept.

    Args:
        network: the traced network.
        kept: the original indices of kept units, by group, ascending.
        means: the mean input of each consumer, which takes the place of removed units; empty for zeros.
        cost: the cost of the plan.
        dense: the cost of the whole network.
        keep: the requested budget.
        effective: the MACs with channels counted up to the step of the device's kernels.
        notes: decisions made for the device, with their reasons.
        change: the change of the loss or the accuracy, where the budget is a bound on it.
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

    def __repr__(self) -> str:
        cost = f"params={self.cost.params}/{self.dense.params}, macs={self.cost.macs}/{self.dense.macs}"
        return f"Plan(keep={dict(self.keep)}, groups={len(self.kept)}, {cost})"

    def _repr_html_(self) -> str:
        budget = ", ".join(f"{unit} {value:g}" for unit, value in self.keep.items())
        return html_table(f"{self.network.title}: {budget}", self._rows())

    def to_dict(self) -> dict[str, Any]:
        """Return the budget, the costs, and the numbers of units before and after by group, as plain numbers.

        `plan.kept` has the indices of the kept units.
        """
        return {
            "keep": dict(self.keep),
            "dense": asdict(self.dense),
            "cost": asdict(self.cost),
            "groups": {group.name: {"units": group.size, "kept": len(self.kept[group.name])} for group in self._groups},
        }

    @property
    def _groups(self) -> list[Group]:
        return [group for group in self.network.groups if group.name in self.kept]

    def __str__(self) -> str:
        extra_lines = [*self._removed_blocks(), *bias_lines(self.new_biases), *self._remarks()]
        return "\n".join([*align_columns(self._rows()), *extra_lines])

    def _rows(self) -> list[list[str]]:
        """Return the table of costs and of groups, the header first."""
        rows = [["", "dense", "plan", "left"]]
        for unit in ("params", "macs", "bytes"):
            before, after = getattr(self.dense, unit), getattr(self.cost, unit)
            rows.append([unit, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}"])
        rows += effective_rows(self.effective)
        rows.append(["", "", "", ""])
        counts = {group.name: len(self.kept[group.name]) for group in self._groups}
        rows += [
            [group.name, str(group.size), str(counts[group.name]), f"{counts[group.name] / group.size:.0%}"]
            for group in self._groups
        ]
        return rows

    def _removed_blocks(self) -> list[str]:
        lines = []
        for group in self.network.groups:
            kept = self.kept.get(group.name)
            if kept is not None and len(kept) < len(group.block_paths):
                paths = (path for at, path in enumerate(group.block_paths) if at not in kept)
                lines.append(f"left out: {', '.join(paths)}")
        return lines

    def _remarks(self) -> list[str]:
        return [*self.notes, *([] if self.change is None else [str(self.change)])]


def effective_rows(effective: EffectiveMacs | None) -> list[list[str]]:
    """Return effective MACs as a row beside the plain ones; none where the device takes any number of channels."""
    if effective is None or effective.step == 1:
        return []
    share = f"{effective.left / max(effective.dense, 1):.1%}"
    return [[f"macs in steps of {effective.step}", f"{effective.dense:,}", f"{effective.left:,}", share]]


def bias_lines(names: Sequence[str]) -> list[str]:
    """Return a line that names the new biases; none where there are none."""
    if not names:
        return []
    return [f"biases that are new, for the means of removed units: {', '.join(names)}"]
