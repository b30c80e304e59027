"""The plot, the JSON and the HTML form of a trade-off curve."""

import json
from typing import TYPE_CHECKING

from secateur.files.records import with_digest
from secateur.report.explanations import terms_in
from secateur.report.line_chart import Curve, CurvePoint, LineChart, line_chart
from secateur.report.pages import render_page
from secateur.utils.plots import axes_for
from secateur.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secateur.tradeoff_curve.curve import Tradeoff

IS_FRACTION = {"metric": False, "accuracy": True, "agreement": True, "loss": False}
FORMAT = "secateur tradeoff 1"
SIZES = {"macs": ("MACs", "MACs that remain"), "latency": ("time", "time that remains")}
"""The sizes that the page has charts of: their names, and the labels of the axes."""


def tradeoff_json(curve: "Tradeoff") -> str:
    """Return a curve as JSON with a digest."""
    content = {
        "format": FORMAT,
        "secateur": __version__,
        "title": curve.title,
        "examples": curve.examples,
        "points": curve.to_dict(),
    }
    return with_digest(json.dumps(content, indent=1).encode()).decode()


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
    )
    axes.axhline(0, color="#999", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"remaining fraction, {size}")
    axes.set_ylabel(_label(curve))
    return axes


def tradeoff_page(curve: "Tradeoff") -> str:
    """Return a curve as one self-contained HTML page; points show their values on hover and on focus."""
    rows = curve.rows()
    bound = {"loss": "loss=0.05", "metric": "metric=-0.02"}.get(curve.measure, f"{curve.measure}=-0.01")
    return render_page(
        "tradeoff.html",
        curve=curve,
        rows=rows,
        charts=[_tradeoff_chart(curve, size) for size in SIZES],
        label=_label(curve),
        example=bound,
        terms=terms_in([*rows[0], *rows[1]]),
    )


def _label(curve: "Tradeoff") -> str:
    return f"{curve.measure}, change" + (" in points" if IS_FRACTION[curve.measure] else "")


def _tradeoff_chart(curve: "Tradeoff", size: str) -> LineChart:
    """Place the changes of all networks over the remaining fraction of a size."""
    is_fraction = IS_FRACTION[curve.measure]
    factor = 100 if is_fraction else 1
    name, axis = SIZES[size]
    points = []
    for point in sorted(curve.points, key=lambda point: point.fraction(size)):
        change, fraction = point.changes[curve.measure], point.fraction(size)
        text = f"{point.budget}: {fraction:.1%} of {name}, {curve.measure} {change.text(is_fraction)}"
        points.append(CurvePoint(fraction, factor * change.mean, factor * change.half_width, text))
    return line_chart(f"Over {name}", axis, _label(curve), [Curve("", points)], 0.0)
