"""The JSON and HTML forms of a comparison of criteria."""

import json
from typing import TYPE_CHECKING

from secateur.files.records import sealed
from secateur.report.comparison_records import NO_REPAIR
from secateur.report.pages import despine, figure_svg, new_figure, render_page
from secateur.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from secateur.report.comparison import Comparison

FORMAT = "secateur comparison 1"


def comparison_json(comparison: "Comparison") -> str:
    """Return a comparison as JSON with a digest."""
    trials = [
        {"by": trial.by, "keep": trial.keep, "repair": trial.repair, "macs": trial.macs, "seconds": trial.seconds}
        | trial.metrics.as_dict
        for trial in comparison.trials
    ]
    content = {
        "format": FORMAT,
        "secateur": __version__,
        "title": comparison.title,
        "held_out": comparison.held_out,
        "examples": len(comparison.dense.losses),
        "dense": comparison.dense.as_dict,
        "trials": trials,
        "recommendations": {repair: comparison.recommendation(repair) for repair in comparison.repairs},
        "refused": dict(comparison.refused),
    }
    return sealed(json.dumps(content, indent=1).encode()).decode()


def comparison_page(comparison: "Comparison") -> str:
    """Return a comparison as one self-contained HTML page with plots."""
    return render_page("comparison.html", comparison=comparison, plot=figure_svg(comparison_figure(comparison)))


def comparison_figure(comparison: "Comparison") -> "Figure":
    """Plot the loss of every criterion over the fraction of MACs, one plot for each repair."""
    figure = new_figure(4.6 * len(comparison.repairs), 3.6, layout="constrained")
    axes_row = figure.subplots(1, len(comparison.repairs), squeeze=False)[0]
    for axes, repair in zip(axes_row, comparison.repairs, strict=True):
        _plot_losses(axes, comparison, repair)
    return figure


def _plot_losses(axes: "Axes", comparison: "Comparison", repair: str) -> None:
    despine(axes).axhline(comparison.dense.loss, color="#999", linewidth=0.8, linestyle=":")
    for by in comparison.ranking(repair):
        trials = [trial for trial in comparison.trials if (trial.by, trial.repair) == (by, repair)]
        points = sorted((trial.macs, trial.metrics.loss) for trial in trials)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=by)
    axes.set_xlabel("fraction of MACs")
    axes.set_ylabel("loss")
    axes.set_title("without repair" if repair == NO_REPAIR else f"after {repair}", fontsize=9)
    axes.legend(frameon=False, fontsize=7)
