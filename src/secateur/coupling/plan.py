"""The plan of a cut: the units that are kept, and what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from secateur.coupling.cost import Cost
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.coupling.group import Group
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.metric_change import MetricChange
from secateur.coupling.network import Kept, Network
from secateur.coupling.new_biases import grown_biases
from secateur.coupling.plan_edits import edited_plan
from secateur.options.call_checks import checked_calls
from secateur.utils.data_frame import data_frame_of_rows
from secateur.utils.html_table import html_table
from secateur.utils.plots import axes_for, bars_of_two
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Budget = Mapping[str, float]


@checked_calls
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
        change: the change of the loss, the accuracy or the metric, where the budget is a bound on it.
        ranked: the units of each group in ascending order of their scores, where they have scores.
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
    ranked: Mapping[str, Tensor] = field(default_factory=dict)

    def with_kept(self, kept: Sizes) -> "Plan":
        """Return the plan with other units kept of some groups; this plan stays as it is.

        The budget is not looked at again: `cost` has the costs of the new plan, and `notes` its changes. Groups that
        are not named keep what they kept.

        Args:
            kept: by group, as `print(network)` shows them, by glob, by module or its path, or by class of modules: the
                number of units, as a whole number; the fraction of the group's units, up to 1.0; or the indices of the
                units. Numbers and fractions keep the units with the highest scores. Of several globs and classes that
                match a group the last counts; what names the group alone counts before them.

        Raises:
            NameMatchError: nothing is named so; the nearest names are given.
            BudgetError: a group can't have that size: it is above its own, below the fewest, or no multiple of what
                its kernels need; two names of one coupled group ask for different sizes; or the plan has no scores of a
                group's units to choose by.
            OptionError: a value is neither a number, a fraction nor indices of the group's units.

        Examples:
            >>> import torch, secateur as sc
            >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> network = sc.trace(model, torch.randn(2, 4))
            >>> plan = sc.plan(network, sc.score(network, by="l1"), keep={"macs": 0.5})
            >>> len(plan.kept["0"]), len(plan.with_kept({"0": 6}).kept["0"]), len(plan.with_kept({"*": 0.25}).kept["0"])
            (4, 6, 2)
            >>> plan.with_kept({model[0]: [0, 7]}).kept["0"]
            tensor([0, 7])
        """
        return edited_plan(self, kept)

    @property
    def new_biases(self) -> tuple[str, ...]:
        """The biases that layers without one get for the means of removed units."""
        return tuple(grown_biases(self.network, self.network.mask(self.kept))) if self.means else ()

    def __repr__(self) -> str:
        cost = f"params={self.cost.params}/{self.dense.params}, macs={self.cost.macs}/{self.dense.macs}"
        return f"Plan(keep={dict(self.keep)}, groups={len(self.kept)}, {cost})"

    def _repr_html_(self) -> str:
        budget = ", ".join(f"{unit} {value:g}" for unit, value in self.keep.items()) or "sizes of groups"
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

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each group.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame_of_rows(
            [
                {"group": group.name, "kind": group.kind, "units": group.size, "kept": len(self.kept[group.name])}
                for group in self._groups
            ]
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot the numbers of units of each group, dense and kept, as horizontal bars.

        Args:
            ax: the axes to plot on; by default those of a new figure.
        """
        names = [group.name for group in self._groups]
        axes = axes_for(ax, 6, 0.8 + 0.28 * len(names))
        sizes = [float(group.size) for group in self._groups]
        bars_of_two(axes, names, sizes, [float(len(self.kept[name])) for name in names], ["dense", "kept"])
        axes.set_xlabel("units")
        return axes

    @property
    def _groups(self) -> list[Group]:
        return [group for group in self.network.groups if group.name in self.kept]

    def __str__(self) -> str:
        extra_lines = [*self._removed_blocks(), *bias_lines(self.new_biases), *self._remarks()]
        return "\n".join([*align_columns(self._rows()), *extra_lines])

    def _rows(self) -> list[list[str]]:
        """Return the table of costs and of groups, the header first."""
        rows = [["", "dense", "plan", "remaining"]]
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
    share = f"{effective.kept / max(effective.dense, 1):.1%}"
    return [[f"macs in steps of {effective.step}", f"{effective.dense:,}", f"{effective.kept:,}", share]]


def cost_text(plan: Plan) -> str:
    """Return the fractions of MACs and parameters that a plan keeps, in words."""
    macs, params = (getattr(plan.cost, unit) / max(getattr(plan.dense, unit), 1) for unit in ("macs", "params"))
    return f"{macs:.1%} of the MACs and {params:.1%} of the parameters are kept"


def bias_lines(names: Sequence[str]) -> list[str]:
    """Return a line that names the new biases; none where there are none."""
    if not names:
        return []
    return [f"biases that are new, for the means of removed units: {', '.join(names)}"]
