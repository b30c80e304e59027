"""The report as one self-contained HTML page with plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from secateur.importance.scores import Scores
from secateur.report.figures import Figures
from secateur.report.pages import DENSE_COLOR, PRUNED_COLOR, despine, figure_svg, new_figure, render_page
from secateur.report.text import LAYER_COLUMNS, introduction, layer_rows, report_rows, time_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SCORE_PLOTS = 24


def report_page(report: Figures, scores: Scores | None) -> str:
    """Return the page, with a plot of the units of each group and, where there are scores, of each unit's score."""
    scored = [name for name in report.groups if scores is not None and name in scores]  # blocks may have none
    names = scored[:MAX_SCORE_PLOTS]
    return render_page(
        "page.html",
        report=report,
        about=introduction(report),
        rows=report_rows(report),
        times=time_rows(report),
        units_plot=figure_svg(_units_figure(report)) if report.groups else None,
        scores_plot=None if scores is None else figure_svg(_scores_figure(report, scores, names)),
        layer_head=LAYER_COLUMNS,
        layers=[] if report.sparsity is None else layer_rows(report.sparsity),
        hidden=len(scored) - len(names),
    )


def _units_figure(report: Figures) -> "Figure":
    names = list(report.groups)
    figure = new_figure(8, 0.8 + 0.28 * len(names))
    axes = despine(figure.subplots())
    positions = range(len(names))
    axes.barh(positions, [report.groups[name][0] for name in names], color=DENSE_COLOR, label="dense")
    axes.barh(positions, [report.groups[name][1] for name in names], color=PRUNED_COLOR, height=0.5, label="kept")
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlabel("units")
    axes.legend(frameon=False)
    return figure


def _scores_figure(report: Figures, scores: Scores, names: Sequence[str]) -> "Figure":
    columns = min(3, max(len(names), 1))
    rows = -(-len(names) // columns) or 1
    figure = new_figure(2.9 * columns, 2.0 * rows, layout="constrained")
    for index, name in enumerate(names):
        _plot_scores(despine(figure.add_subplot(rows, columns, index + 1)), report, scores, name)
    return figure


def _plot_scores(axes: "Axes", report: Figures, scores: Scores, name: str) -> None:
    """Plot the scores of one group in ascending order with standard errors; removed units are pale."""
    values, errors = scores[name].values, scores[name].errors
    order = torch.argsort(values)
    size, kept = report.groups[name]
    colors = [DENSE_COLOR if rank < size - kept else PRUNED_COLOR for rank in range(len(order))]
    positions, heights = range(len(order)), values[order].tolist()
    axes.bar(positions, heights, color=colors, width=1.0)
    axes.errorbar(positions, heights, errors[order].tolist(), fmt="none", ecolor="#555", elinewidth=0.6)
    axes.set_title(name, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xticks([])
