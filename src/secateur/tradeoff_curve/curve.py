"""Trade-off curves: networks of several sizes from one scoring, each with its change on held-out examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.allocation.quantities import budget_text
from secateur.errors import BudgetError, NameMatchError
from secateur.evaluation.changes import Change
from secateur.files import text_writer, write_files
from secateur.options.call_checks import checked_calls
from secateur.options.table import as_path
from secateur.pruning.results import Result
from secateur.tradeoff_curve.page import IS_FRACTION, plot_tradeoff, tradeoff_json, tradeoff_page
from secateur.utils.data_frame import data_frame_of_rows
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SIZES = ("macs", "params", "bytes", "latency")


@checked_calls
@dataclass(frozen=True, eq=False)
class TradeoffPoint:
    """One network of a trade-off curve.

    Args:
        keep: the budget.
        result: the network with its plan and report, as `prune` returns it.
        changes: the changes from the dense network: "loss", where there are classes "accuracy" and "agreement", and the
            user's "metric".
    """

    keep: Mapping[str, float]
    result: Result
    changes: Mapping[str, Change]

    @property
    def budget(self) -> str:
        """The budget in words."""
        return budget_text(self.keep)

    def fraction(self, size: str) -> float:
        """Return the remaining fraction of "macs", "params", "bytes" or "latency"."""
        report = self.result.report
        if size == "latency":
            return report.pruned.latency.median / report.dense.latency.median
        return float(getattr(report.pruned.cost, size) / max(getattr(report.dense.cost, size), 1))


@checked_calls
@dataclass(frozen=True, eq=False)
class Tradeoff:
    """A trade-off curve: what is lost against what is saved.

    Args:
        title: the model's class.
        examples: the number of examples that networks were measured on, which no network was fitted to.
        points: the networks, the largest first.
    """

    title: str
    examples: int
    points: tuple[TradeoffPoint, ...]

    @cached_property
    def measure(self) -> str:
        """The measure that curves show: "metric", else "accuracy", else "agreement", else "loss"."""
        return next(name for name in IS_FRACTION if name in self.points[0].changes)

    def pick(self, **bounds: float) -> Result:
        """Return the smallest network, by MACs, within bounds on its mean changes.

        Args:
            bounds: changes of measures that are allowed, such as `accuracy=-0.01` or `loss=0.05`, or remaining
                fractions, such as `latency=0.5`. `metric=-0.02` allows a decrease, `metric=0.02` an increase.

        Raises:
            NameMatchError: no bound is given, one is not a number, or a name is unknown or not measured here.
            BudgetError: no network is within the bounds.
        """
        known_names = {*self.points[0].changes, *SIZES}
        if (
            not bounds
            or not bounds.keys() <= known_names
            or not all(isinstance(bound, int | float) for bound in bounds.values())
        ):
            raise NameMatchError(
                f"pick() takes numbers as bounds on {', '.join(sorted(known_names))}, such as "
                + ("loss=0.05" if self.measure == "loss" else f"{self.measure}=-0.01")
            )
        points_within = [point for point in self.points if all(_meets_bound(point, *bound) for bound in bounds.items())]
        if not points_within:
            raise BudgetError(
                f"no network of this curve is within {bounds}:\n{self}\nallow more, or add larger budgets to keep="
            )
        return min(points_within, key=lambda point: point.fraction("macs")).result

    def rows(self) -> list[list[str]]:
        """Return the table of all networks, its header first."""
        measures = list(self.points[0].changes)
        rows = [["keep", "params", "MACs", "ms", "speed", *(f"{name}, change" for name in measures)]]
        for point in self.points:
            report = point.result.report
            cost, latency = report.pruned.cost, report.pruned.latency.median
            changes = [point.changes[name].text(IS_FRACTION[name]) for name in measures]
            speed = f"{1 / point.fraction('latency'):.2f}x"
            rows.append([point.budget, f"{cost.params:,}", f"{cost.macs:,}", f"{latency:.3g}", speed, *changes])
        return rows

    def __str__(self) -> str:
        return "\n".join([self._note, *align_columns(self.rows())])

    def _repr_html_(self) -> str:
        return html_table(self._note, self.rows())

    @property
    def _note(self) -> str:
        return f"{self.title}: changes on {self.examples:,} examples that no network was fitted to, with 95 % intervals"

    def __repr__(self) -> str:
        budgets = ", ".join(point.budget for point in self.points)
        return f"Tradeoff({self.title!r}, {budgets}; {self.measure} on {self.examples} examples)"

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one row of plain numbers for each network."""
        return [
            {
                **point.keep,
                **{f"{size} fraction": point.fraction(size) for size in SIZES},
                **{f"{name} change": change.mean for name, change in point.changes.items()},
                **{f"{name} half width": change.half_width for name, change in point.changes.items()},
            }
            for point in self.points
        ]

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each network.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame_of_rows(
            [{"budget": point.budget, **row} for point, row in zip(self.points, self.to_dict(), strict=True)]
        )

    def plot(self, ax: "Axes | None" = None, size: str = "macs") -> "Axes":
        """Plot the changes with their 95 % intervals over the remaining fraction of a size.

        Args:
            ax: the axes to plot on; by default those of a new figure.
            size: "macs", "params", "bytes" or "latency".
        """
        return plot_tradeoff(self, ax, size)

    def to_html(self) -> str:
        """Return the curve as one self-contained HTML page."""
        return tradeoff_page(self)

    def save(self, folder: str | Path) -> None:
        """Write tradeoff.txt, tradeoff.json and tradeoff.html.

        Raises:
            StorageError: the files can't be written. Files that existed before are unchanged.
        """
        writers = {
            "tradeoff.txt": text_writer(f"{self}\n"),
            "tradeoff.json": text_writer(tradeoff_json(self)),
            "tradeoff.html": text_writer(self.to_html()),
        }
        write_files(as_path(folder, "folder"), writers)


def _meets_bound(point: TradeoffPoint, name: str, bound: float) -> bool:
    if name in SIZES:
        return point.fraction(name) <= bound
    change = point.changes[name].mean
    is_increase = bound > 0 if name == "metric" else name == "loss"
    return change <= bound if is_increase else change >= bound
