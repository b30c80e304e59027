"""The plots of docs/shapley.md: errors of estimators against their cost, and times against sizes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from shapley.points import Point
from shapley.scaling import ScalingMeasurement, slope

SHOWN = ("vgg features.7", "vgg features.14", "demo layer2.0.conv1")
PANELS = (("coalitions", "error"), ("seconds", "error"), ("seconds", "correlation"))


def plot_curves(folder: Path, points: Sequence[Point], names: Sequence[str] = SHOWN) -> None:
    """Plot the errors against coalitions and seconds, and the rank correlation against seconds.

    Args:
        folder: the folder of the plot, `shapley-curves.svg`.
        points: the estimates.
        names: the networks and groups, one for each row of panels.
    """
    methods = dict.fromkeys(point.method for point in points)
    colours = {method: f"C{number % 10}" for number, method in enumerate(methods)}
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "curves"
    figure, axes = plt.subplots(len(names), 3, figsize=(10, 3 * len(names) + 0.6), layout="constrained", squeeze=False)
    for row, name in zip(axes, names, strict=True):
        of_group = [point for point in points if f"{point.subject} {point.group}" == name]
        for axis, (x, y) in zip(row, PANELS, strict=True):
            _draw_methods(axis, of_group, x, y, colours)
            axis.set_title(name, fontsize=9)
    labelled = max(axes.flat, key=lambda axis: len(axis.lines))
    figure.legend(*labelled.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(folder / "shapley-curves.svg", metadata={"Date": None})
    plt.close(figure)


def _draw_methods(axis: Axes, points: Sequence[Point], x: str, y: str, colours: Mapping[str, str]) -> None:
    for method in dict.fromkeys(point.method for point in points):
        line = [(getattr(point, x), getattr(point, y)) for point in points if point.method == method]
        marker = "o" if len(line) > 1 else "x"
        axis.plot(*zip(*line, strict=True), linewidth=1, label=method, marker=marker, markersize=4,
                  color=colours[method])  # fmt: skip
    axis.set_xscale("log")
    if y == "error":
        axis.set_yscale("log")
    axis.set_xlabel(x)
    axis.set_ylabel("squared error" if y == "error" else "rank correlation")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, alpha=0.3)


def plot_scaling(folder: Path, measurements: Mapping[str, Sequence[ScalingMeasurement]]) -> None:
    """Plot time and memory against units, examples and depth.

    Args:
        folder: the folder of the plot, `scaling.svg`.
        measurements: the measurements by the size that varies.
    """
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scaling"
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for axis, by in zip(axes, ("units", "examples", "depth"), strict=True):
        series = measurements[by]
        x = [getattr(measurement, by) for measurement in series]
        axis.loglog(x, [measurement.seconds for measurement in series], "o-", label="seconds")
        axis.loglog(x, [max(measurement.megabytes, 1) / 100 for measurement in series], "s--", label="100 MB")
        axis.set_xlabel(f"{by} (slope {slope(list(series), by, 'seconds'):.2f})")
        axis.grid(True, alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(folder / "scaling.svg", metadata={"Date": None})
    plt.close(figure)
