"""The plot of a report."""

from typing import TYPE_CHECKING

from secateur.report.figures import Figures
from secateur.utils.plots import axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_report(report: Figures, ax: "Axes | None") -> "Axes":
    """Plot the remaining fractions of parameters, MACs, bytes and time; error bars are the quartiles of the time."""
    axes = axes_for(ax, 4.5, 2.6)
    dense, pruned = report.dense, report.pruned
    pairs = [(getattr(pruned.cost, unit), getattr(dense.cost, unit)) for unit in ("params", "macs", "bytes")]
    fractions = [after / max(before, 1) for after, before in pairs]
    median = dense.latency.median
    times = [pruned.latency.lower / median, pruned.latency.median / median, pruned.latency.upper / median]
    names = ["parameters", "MACs", "bytes", f"ms for {pruned.latency.batch}"]
    bars = axes.bar(names, [*fractions, times[1]])
    axes.errorbar([3], [times[1]], yerr=[[times[1] - times[0]], [times[2] - times[1]]], fmt="none", ecolor="black")
    axes.bar_label(bars, fmt="{:.0%}")
    axes.axhline(1, color="gray", linewidth=0.8, linestyle=":")
    axes.set_ylabel("fraction of the dense network")
    axes.set_title(f"{report.title}: loss {dense.loss:.4g} to {pruned.loss:.4g}")
    return axes
