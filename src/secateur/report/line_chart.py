"""Charts of lines with intervals, as their positions in an SVG drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.report.chart_scale import Scale, Tick, round_values

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 398, 22, 234
HUES, SHAPES = 6, 6
DASHES = ("", "7 3", "10 3 2 3", "2 3")
APART = 5  # positions between the points of two curves at the same fraction


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve, in values.

    Args:
        x: the remaining fraction.
        y: the value.
        half_width: half the width of its interval; 0 without one.
        text: the point in words.
    """

    x: float
    y: float
    half_width: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line of a chart, in values.

    Args:
        name: its name.
        points: its points, in the order in which they are joined.
    """

    name: str
    points: Sequence[CurvePoint]


@dataclass(frozen=True)
class LineStyle:
    """The style of a line, which differs from that of others by more than its hue.

    Args:
        name: of the line.
        hue: the number of the hue.
        dash: the dashes of the line.
        shape: the number of the marker's shape.
        solid: whether the marker is filled.
    """

    name: str
    hue: int
    dash: str
    shape: int
    solid: bool


def line_style(name: str, index: int) -> LineStyle:
    """Return the style of the line with an index."""
    return LineStyle(name, index % HUES, DASHES[index % len(DASHES)], index % SHAPES, index % 2 == 0)


@dataclass(frozen=True)
class PlacedPoint:
    """A point of a chart in positions; `low` and `high` are None without an interval."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class PlacedLine:
    """A line of a chart in positions."""

    style: LineStyle
    points: tuple[PlacedPoint, ...]


@dataclass(frozen=True)
class LineChart:
    """A chart in positions, as the template draws it.

    Args:
        title: above the chart.
        x_label: below the chart.
        y_label: what is drawn upwards.
        lines: the lines.
        x_ticks: the ticks of the lower axis.
        y_ticks: the ticks of the left axis.
        dense: the position of the dense network's value.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[PlacedLine, ...]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    dense: float
    width: int = WIDTH
    height: int = HEIGHT
    start: int = LEFT
    end: int = RIGHT
    bottom: int = BOTTOM


def line_chart(title: str, x_label: str, y_label: str, curves: Sequence[Curve], dense: float) -> LineChart:
    """Place curves over the remaining fraction, slightly apart; points whose value isn't finite are left out.

    Args:
        title: above the chart.
        x_label: the size whose fraction remains.
        y_label: what is drawn upwards.
        curves: the curves.
        dense: the value of the dense network.
    """
    points = [point for curve in curves for point in curve.points if math.isfinite(point.y)]
    lows = [point.y - _finite_width(point) for point in points]
    highs = [point.y + _finite_width(point) for point in points]
    levels = round_values(min([dense, *lows]), max([dense, *highs]))
    steps = round_values(0, max([1.0, *(point.x for point in points)]))
    x_scale = Scale(steps[0], steps[-1], LEFT, RIGHT)
    y_scale = Scale(levels[0], levels[-1], BOTTOM, TOP)
    lines = tuple(
        PlacedLine(
            line_style(curve.name, index),
            _placed_points(curve, APART * (index - (len(curves) - 1) / 2), x_scale, y_scale),
        )
        for index, curve in enumerate(curves)
    )
    x_ticks = x_scale.ticks(steps, " %", 100)
    return LineChart(title, x_label, y_label, lines, x_ticks, y_scale.ticks(levels), y_scale.position(dense))


def _finite_width(point: CurvePoint) -> float:
    return point.half_width if math.isfinite(point.half_width) else 0.0


def _placed_points(curve: Curve, shift: float, x_scale: Scale, y_scale: Scale) -> tuple[PlacedPoint, ...]:
    placed_points = []
    for point in curve.points:
        if math.isfinite(point.y):
            x, width = round(x_scale.position(point.x) + shift, 1), _finite_width(point)
            low = y_scale.position(point.y - width) if width else None
            high = y_scale.position(point.y + width) if width else None
            placed_points.append(PlacedPoint(x, y_scale.position(point.y), low, high, point.text))
    return tuple(placed_points)
