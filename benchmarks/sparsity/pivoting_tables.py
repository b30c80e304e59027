"""The tables of the benchmark of pivoting: accuracies, the weight that blocks hold, and times."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from math import isnan, nan

import numpy as np
from rows import spread_text

from sparsity.pivoting_methods import METHODS

Row = dict[str, object]
DENSITIES = (0.5, 0.25, 0.125, 0.1)
BOUNDED = DENSITIES[:3]
CASE = ("layer", "size", "image", "side", "batch")
PACKED = ("tiles", "bsr", "loops")
TITLES = {
    "fashion": "LeNet-300-100, Fashion-MNIST",
    "mnist": "LeNet-300-100, MNIST, 4,000 images to train with",
    "residual": "The residual network, Fashion-MNIST, three rounds of an epoch",
}
COLUMNS = (
    "layer", "image", "blocks", "batch", "density", "dense", "tiles", "block sparse rows", "compiled loops",
    "of the ideal speed", "slope",
)  # fmt: skip
TIMES_TEXT = [
    "Milliseconds of dense and packed layers, the least of seven runs, on one thread. The ideal time is the",
    "density times the dense time. The slope is that of the logarithm of the shortest packed time against the",
    "logarithm of the density (ideally 1):",
]


def pivoting_tables(rows: list[Row]) -> list[str]:
    """Return the lines of all tables."""
    accuracies: dict[str, list[Row]] = {}
    for row in rows:
        if row["part"] == "accuracy":
            accuracies.setdefault(str(row["data"]), []).append(row)
    lines = [line for name, of_data in accuracies.items() for line in _accuracy_lines(name, of_data)]
    lines += _held_lines(rows)
    lines += ["", *TIMES_TEXT, ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" + "|--:" * 10 + "|"]
    timed = [row for row in rows if row["part"] == "time"]
    for case, group in itertools.groupby(timed, lambda row: [row[name] for name in CASE]):
        lines += _time_lines(*case, list(group))
    return lines


def _accuracy_lines(name: str, rows: Sequence[Row]) -> list[str]:
    measured: defaultdict[tuple[object, object], list[Row]] = defaultdict(list)
    for row in rows:
        measured[row["method"], row["density"]].append(row)
    lines = [f"{TITLES[name]}; dense: {_spread_of(measured['dense', 1.0], 'accuracy')} %.", ""]
    lines += [
        "| density | " + " | ".join(f"{method}: weight held | accuracy" for method in METHODS) + " |",
        "|--:" * (1 + 2 * len(METHODS)) + "|",
    ]
    for density in (density for density in DENSITIES if measured[next(iter(METHODS)), density]):
        cells = [
            _spread_of(measured[method, density], quantity)
            for method in METHODS
            for quantity in ("retained", "accuracy")
        ]
        lines.append(f"| {density:.1%} | {' | '.join(cells)} |")
    return [*lines, ""]


def _held_lines(rows: Sequence[Row]) -> list[str]:
    """Return the weight that blocks hold by their shape, and its upper bound by the density."""
    by_shape: dict[str, list[Row]] = {}
    for row in rows:
        if row["part"] == "shape":
            by_shape.setdefault(_shape_text(row), []).append(row)
    bounds = {
        f"{density:.1%}": [row for row in rows if row["part"] == "ceiling" and row["density"] == density]
        for density in BOUNDED
    }
    return [
        "Weight that blocks hold at 25 %, in percent of what any weights of that number hold, by shape:",
        "",
        *_one_line_table(by_shape),
        "",
        "The upper bound for blocks of two rows and two columns or more, for any orders, in percent of the same:",
        "",
        *_one_line_table(bounds),
    ]


def _one_line_table(columns: dict[str, list[Row]]) -> list[str]:
    cells = [_spread_of(rows, "held") for rows in columns.values()]
    return [f"| {' | '.join(columns)} |", "|--:" * len(columns) + "|", f"| {' | '.join(cells)} |"]


def _time_lines(layer: object, size: object, image: object, side: object, batch: object, rows: list[Row]) -> list[str]:
    """Return a layer's lines of the table; the last has the slope."""
    lines = []
    for row in rows:
        dense, *packed = (float(row.get(name, nan)) for name in ("dense", *PACKED))  # type: ignore[arg-type]
        share = float(row["density"]) * dense / np.nanmin(packed)  # type: ignore[arg-type]
        cells = [f"{layer} {size}", str(image or ""), f"{side} x {side}", str(batch), f"{row['density']:.1%}"]
        cells += [f"{dense:.3f}", *("" if isnan(time) else f"{time:.3f}" for time in packed), f"{share:.2f}"]
        lines.append(f"| {' | '.join(cells)} | |")
    least = [min(float(row[name]) for name in PACKED if name in row) for row in rows]  # type: ignore[arg-type]
    slope = np.polyfit(np.log([float(row["density"]) for row in rows]), np.log(least), 1)[0]  # type: ignore[arg-type]
    return [*lines[:-1], lines[-1].removesuffix("|") + f"{slope:.2f} |"]


def _shape_text(row: Row) -> str:
    return " x ".join(map(str, row["shape"]))  # type: ignore[call-overload]


def _spread_of(rows: Sequence[Row], name: str) -> str:
    return spread_text([100 * float(row[name]) for row in rows])  # type: ignore[arg-type]
