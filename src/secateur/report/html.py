"""The report as one self-contained HTML page with plots."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secateur.report.text import LAYER_HEAD, about, layer_rows, report_rows, time_rows
from secateur.version import __version__

if TYPE_CHECKING:
    from secateur.report.report import Figures, Report

DENSE, PRUNED = "#b8c4d0", "#2f6f4f"
MOST_PLOTS = 24


def report_page(report: "Figures") -> str:
    """The page; everything it needs is inside it."""
    template = Environment(loader=PackageLoader("secateur", "report"), autoescape=True).get_template("page.html")
    scored: Any = report if hasattr(report, "scores") else None
    ranked = [name for name in report.groups if scored is None or name in scored.scores]  # blocks beside others: not
    shown = ranked[:MOST_PLOTS]
    return template.render(
        report=report,
        about=about(report),
        rows=report_rows(report),
        times=time_rows(report),
        units_plot=figure_svg(_units_figure(report)) if report.groups else None,
        scores_plot=None if scored is None else figure_svg(_scores_figure(scored, shown)),
        layer_head=LAYER_HEAD,
        layers=[] if report.sparsity is None else layer_rows(report.sparsity),
        hidden=len(ranked) - len(shown),
        version=__version__,
    )


def figure_svg(figure: Figure) -> Markup:
    """A figure as it stands in a page."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = drawn.getvalue()
    return Markup(text[text.index("<svg") :])


def despine(axes: Axes) -> Axes:
    """Axes without a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _units_figure(report: "Figures") -> Figure:
    names = list(report.groups)
    figure = Figure(figsize=(8, 0.8 + 0.28 * len(names)))
    axes = despine(figure.subplots())
    places = range(len(names))
    axes.barh(places, [report.groups[name][0] for name in names], color=DENSE, label="dense")
    axes.barh(places, [report.groups[name][1] for name in names], color=PRUNED, height=0.5, label="kept")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("units")
    axes.legend(frameon=False)
    return figure


def _scores_figure(report: "Report", names: Sequence[str]) -> Figure:
    """For each group its units' scores in ascending order, with standard errors; what was cut is pale."""
    wide = min(3, max(len(names), 1))
    high = -(-len(names) // wide) or 1
    figure = Figure(figsize=(2.9 * wide, 2.0 * high), layout="constrained")
    for place, name in enumerate(names):
        axes = despine(figure.add_subplot(high, wide, place + 1))
        scores = report.scores[name]
        order = torch.argsort(scores.values)
        gone = report.groups[name][0] - report.groups[name][1]
        colors = [DENSE if rank < gone else PRUNED for rank in range(len(order))]
        errors = scores.errors[order].tolist()
        axes.bar(range(len(order)), scores.values[order].tolist(), color=colors, width=1.0)
        axes.errorbar(
            range(len(order)), scores.values[order].tolist(), errors, fmt="none", ecolor="#555", elinewidth=0.6
        )
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_xticks([])
    return figure
