"""The plot, the JSON and the HTML form of a trade-off curve."""

import json
from typing import TYPE_CHECKING

from secateur.files.records import sealed
from secateur.report.pages import PRUNED_COLOR, render_page
from secateur.utils.plots import axes_for
from secateur.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secateur.tradeoff_curve.curve import Tradeoff

IS_FRACTION = {"metric": False, "accuracy": True, "agreement": True, "loss": False}
FORMAT = "secateur tradeoff 1"
WIDTH, HEIGHT, MARGIN = 640, 320, 56  # of a plot in the page, in its own units


def tradeoff_json(curve: "Tradeoff") -> str:
    """Return a curve as JSON with a digest."""
    content = {
        "format": FORMAT,
        "secateur": __version__,
        "title": curve.title,
        "examples": curve.examples,
        "points": curve.to_dict(),
    }
    return sealed(json.dumps(content, indent=1).encode()).decode()


def plot_tradeoff(curve: "Tradeoff", ax: "Axes | None", size: str) -> "Axes":
    """Plot the changes with their 95 % intervals over the remaining fraction of a size."""
    axes = axes_for(ax, 5, 3.4)
    factor = 100 if IS_FRACTION[curve.measure] else 1
    changes = [point.changes[curve.measure] for point in curve.points]
    axes.errorbar(
        [point.fraction(size) for point in curve.points],
        [factor * change.mean for change in changes],
        [factor * change.half_width for change in changes],
        marker="o",
        capsize=3,
        color=PRUNED_COLOR,
    )
    axes.axhline(0, color="#999", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"remaining fraction, {size}")
    axes.set_ylabel(_label(curve))
    return axes


def tradeoff_page(curve: "Tradeoff") -> str:
    """Return a curve as one self-contained HTML page; points show their values on hover and on focus."""
    plots = [_plot_values(curve, size) for size in ("macs", "latency")]
    return render_page("tradeoff.html", curve=curve, rows=curve.rows(), plots=plots, label=_label(curve))


def _label(curve: "Tradeoff") -> str:
    return f"{curve.measure}, change" + (" in points" if IS_FRACTION[curve.measure] else "")


def _plot_values(curve: "Tradeoff", size: str) -> dict[str, object]:
    """Return the coordinates of a plot: points with their intervals, ticks, and texts."""
    factor = 100 if IS_FRACTION[curve.measure] else 1
    changes = [point.changes[curve.measure] for point in curve.points]
    lows = [factor * (change.mean - change.half_width) for change in changes]
    highs = [factor * (change.mean + change.half_width) for change in changes]
    bottom, top = min(0.0, *lows), max(0.0, *highs)
    span = (top - bottom) or 1.0
    right = max(1.0, *(point.fraction(size) for point in curve.points))

    def x(fraction: float) -> float:
        return round(MARGIN + fraction / right * (WIDTH - MARGIN - 16), 1)

    def y(value: float) -> float:
        return round(16 + (top - value) / span * (HEIGHT - 16 - MARGIN), 1)

    points = [
        {
            "x": x(point.fraction(size)),
            "y": y(factor * change.mean),
            "low": y(low),
            "high": y(high),
            "text": f"{point.budget}: {point.fraction(size):.1%} of {size}, {curve.measure} "
            + change.text(IS_FRACTION[curve.measure]),
        }
        for point, change, low, high in zip(curve.points, changes, lows, highs, strict=True)
    ]
    ticks = [{"x": x(step / 4 * right), "text": f"{step / 4 * right:.0%}"} for step in range(5)]
    levels = [{"y": y(bottom + step / 4 * span), "text": f"{bottom + step / 4 * span:.3g}"} for step in range(5)]
    return {"size": size, "points": points, "ticks": ticks, "levels": levels, "zero": y(0.0)}
