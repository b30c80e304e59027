"""The plot of a comparison."""

import math
from typing import TYPE_CHECKING

from secateur.evaluation.changes import standard_error
from secateur.options import check_name
from secateur.report.comparison_records import NO_REPAIR
from secateur.utils.plots import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secateur.report.comparison import Comparison


def plot_comparison(comparison: "Comparison", ax: "Axes | None", repair: str) -> "Axes":
    """Plot the loss, or the metric, of every criterion over the fraction of MACs; error bars are standard errors.

    Raises:
        NameMatchError: no trial used the repair.
    """
    check_name(repair, comparison.repairs, "no trial used the repair")
    axes, metric = axes_for(ax, 5, 3.4), comparison.dense.metric
    sign = -1 if metric is not None and metric.is_higher_better else 1
    axes.axhline(sign * comparison.dense.cost, color="gray", linewidth=0.8, linestyle=":")
    for by in comparison.ranking(repair):
        trials = [trial for trial in comparison.trials if (trial.by, trial.repair) == (by, repair)]
        trials.sort(key=lambda trial: trial.macs)
        costs = [trial.metrics.costs for trial in trials]
        errors = [error if math.isfinite(error) else 0.0 for error in map(standard_error, costs)]
        heights = [sign * trial.metrics.cost for trial in trials]
        axes.errorbar([trial.macs for trial in trials], heights, yerr=errors, marker="o", markersize=3, label=by)
    axes.set_xlabel("fraction of MACs")
    axes.set_ylabel("loss" if metric is None else metric.name)
    axes.set_title("without repair" if repair == NO_REPAIR else f"after {repair}")
    axes.legend(frameon=False, fontsize="small")
    return axes
