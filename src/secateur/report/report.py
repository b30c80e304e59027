"""The report of a pruned network, with its text, JSON and HTML forms."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from secateur.files.records import encode_record
from secateur.importance.scores import Scores
from secateur.options.call_checks import checked_calls
from secateur.report.figures import Figures, measure_rows
from secateur.report.report_page import report_page
from secateur.report.report_plot import plot_report
from secateur.report.schema import saved_form
from secateur.report.text import introduction, report_rows, report_text
from secateur.utils.data_frame import data_frame_of_rows
from secateur.utils.html_table import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Figures):
    """The figures of a pruned network and the scores behind them.

    Args:
        scores: the scores of the units; None for methods that do not score units.
        kept: the indices of the units that were kept, by group.
    """

    scores: Scores | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return report_text(self)

    def __repr__(self) -> str:
        dense, pruned = self.dense, self.pruned
        size = f"params={pruned.cost.params}/{dense.cost.params}, macs={pruned.cost.macs}/{dense.cost.macs}"
        return f"Report({self.title!r}, keep={self.keep}, {size}, loss={pruned.loss:.4g}/{dense.loss:.4g})"

    def _repr_html_(self) -> str:
        return html_table(introduction(self)[0], [["", "dense", "pruned", "change"], *report_rows(self)])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the report's JSON form."""
        return dict(json.loads(self.to_json()))

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each measure.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame_of_rows(measure_rows(self))

    def to_json(self) -> str:
        """Return the report as JSON."""
        return encode_record(saved_form(self)).decode()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot what remains of the dense network's parameters, MACs, bytes and time, the last with its quartiles.

        Args:
            ax: the axes to plot on; by default those of a new figure.
        """
        return plot_report(self, ax)

    def to_html(self) -> str:
        """Return the report as one self-contained HTML page with charts."""
        return report_page(self, self.scores, self.kept)
