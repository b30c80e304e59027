"""The measurements as tables for docs/shapley.md, and log-log plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

from shapley.curves import Race
from shapley.owen import Whole
from shapley.page_texts import (
    ABOUT,
    COMPILED,
    CURVES,
    EQUAL,
    INTRODUCTIONS,
    LOW_PRECISION,
    PASSES,
    POINTS,
    RACES,
    SCALING,
    THROUGHPUT,
    WHOLE_GAME,
)  # fmt: skip
from shapley.points import Point
from shapley.precision import Compiled, Precise
from shapley.scaling import Measured, slope
from shapley.speed import Throughput

SHOWN = ("vgg features.7", "vgg features.14", "demo layer2.0.conv1")


def points(found: Sequence[Point]) -> str:
    """Each method's error, one line for each group and budget."""
    rows = ["| network | group | method | coalitions | evaluations | seconds | error | rank correlation |"]
    rows.append("|---|---|---|--:|--:|--:|--:|--:|")
    rows += [
        f"| {p.subject} | {p.group} | {p.method} | {p.coalitions:,.0f} | {p.evaluations:,.0f} | {p.seconds:.2f} | "
        f"{p.error:.3f} | {p.correlation:.2f} |"
        for p in found
    ]
    return "\n".join([CURVES, "", *rows])


def summary(found: Sequence[Point]) -> str:
    """Each estimator's error as a part of plain orders' at equal evaluations, the geometric mean over groups."""
    budgets = sorted({p.budget for p in found})
    rows = ["| estimator | " + " | ".join(f"{budget} per unit" for budget in budgets) + " |"]
    rows.append("|---|" + "--:|" * len(budgets))
    plain = {(p.subject, p.group, p.budget): p.error for p in found if p.method == "permutation"}
    for method in dict.fromkeys(p.method for p in found):
        cells = []
        for budget in budgets:
            ratios = [
                p.error / plain[p.subject, p.group, p.budget]
                for p in found
                if p.method == method and p.budget == budget
            ]
            product = 1.0
            for ratio in ratios:
                product *= ratio ** (1 / len(ratios))
            cells.append(f"{product:.2f}")
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def races(found: Mapping[str, Sequence[Race]]) -> str:
    """How long five orders take, and how long we take to come as near."""
    rows = ["| examples | group | units | authors' error | seconds | our error | seconds | times faster |"]
    rows.append("|--:|---|--:|--:|--:|--:|--:|--:|")
    for examples, each in found.items():
        rows += [
            f"| {examples} | {r.group} | {r.units} | {r.error:.3f} | {r.seconds:.1f} | {r.our_error:.3f} | "
            f"{r.our_seconds:.2f} | {r.seconds / r.our_seconds:.0f} |"
            for r in each
        ]
        theirs, ours = sum(r.seconds for r in each), sum(r.our_seconds for r in each)
        rows.append(f"| {examples} | **all** | | | {theirs:.1f} | | {ours:.2f} | **{theirs / ours:.0f}** |")
    return "\n".join(rows)


def throughputs(found: Sequence[Throughput]) -> str:
    rows = [
        "| group | us for a coalition | us for an image through the bare suffix | throughput |",
        "|---|--:|--:|--:|",
    ]
    rows += [f"| {t.group} | {t.coalition:.1f} | {t.bare:.1f} | {t.bare / t.coalition:.0%} |" for t in found]
    return "\n".join(rows)


def passes(found: Mapping[str, Mapping[str, float]]) -> str:
    rows = ["| network | taylor | sensitivity | apoz |", "|---|--:|--:|--:|"]
    rows += [
        f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in each.values()) + " |" for name, each in found.items()
    ]
    return "\n".join(rows)


def scaling(found: Mapping[str, Sequence[Measured]]) -> str:
    rows = ["| units | examples | depth | limit, MB | seconds | grew by, MB |", "|--:|--:|--:|--:|--:|--:|"]
    for each in found.values():
        rows += [
            f"| {m.units} | {m.examples} | {m.depth} | {m.limit} | {m.seconds:.2f} | {m.megabytes:.0f} |" for m in each
        ]
    slopes = ", ".join(f"{slope(list(found[by]), by, 'seconds'):.2f} for {by}" for by in ("units", "examples", "depth"))
    return "\n".join([f"Slopes of the time on a log-log plot are: {slopes}.", "", *rows, "", "![scaling](scaling.svg)"])


def precisions(found: Sequence[Precise], compiled: Sequence[Compiled]) -> str:
    """What bfloat16 and a compiler give."""
    rows = [
        LOW_PRECISION,
        "",
        "| group | us for a coalition, float32 | bfloat16 | times faster | error, float32 | bfloat16 |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in found:
        (plain, low), (error, rounded) = each.microseconds, each.errors
        rows.append(f"| {each.group} | {plain:.1f} | {low:.1f} | {plain / low:.1f} | {error:.3f} | {rounded:.3f} |")
    rows += [
        "",
        COMPILED.strip(),
        "",
        "| | ms | compiled, ms | to compile, s |",
        "|---|--:|--:|--:|",
    ]
    rows += [f"| {c.precision} | {c.eager:.1f} | {c.compiled:.1f} | {c.seconds:.1f} |" for c in compiled]
    return "\n".join(rows)


def wholes(found: Sequence[Whole]) -> str:
    """Owen values by either estimator."""
    rows = [
        WHOLE_GAME,
        "",
        "| network | units | estimator | evaluations | seconds | error |",
        "|---|--:|---|--:|--:|--:|",
    ]
    rows += [
        f"| {w.subject} | {w.players} | {w.method} | {w.evaluations:,} | {w.seconds:.1f} | {w.error:.3f} |"
        for w in found
    ]
    return "\n".join(rows)


def points_of(table: str) -> list[Point]:
    """The points that a table of them holds; no budgets."""
    found = []
    for line in table.strip().splitlines()[2:]:
        subject, group, method, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Point(method, subject, group, 0, *(float(number.replace(",", "")) for number in numbers)))
    return found


def curves(folder: Path, found: Sequence[Point], names: Sequence[str] = SHOWN) -> None:
    """Error against coalitions and seconds for some groups, and rank correlation against seconds."""
    colours = {method: f"C{number % 10}" for number, method in enumerate(dict.fromkeys(p.method for p in found))}
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "curves"
    panels = (("coalitions", "error"), ("seconds", "error"), ("seconds", "correlation"))
    figure, axes = plt.subplots(len(names), 3, figsize=(10, 3 * len(names) + 0.6), layout="constrained", squeeze=False)
    for row, name in zip(axes, names, strict=True):
        mine = [point for point in found if f"{point.subject} {point.group}" == name]
        methods = dict.fromkeys(point.method for point in mine)
        for axis, (x, y) in zip(row, panels, strict=True):
            for method in methods:
                line = [(getattr(p, x), getattr(p, y)) for p in mine if p.method == method]
                style = {"marker": "o" if len(line) > 1 else "x", "markersize": 4, "color": colours[method]}
                axis.plot(*zip(*line, strict=True), linewidth=1, label=method, **style)
            axis.set_xscale("log")
            if y == "error":
                axis.set_yscale("log")
            axis.set_title(name, fontsize=9)
            axis.set_xlabel(x)
            axis.set_ylabel("squared error" if y == "error" else "rank correlation")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(True, alpha=0.3)
    labelled = max(axes.flat, key=lambda axis: len(axis.lines))
    figure.legend(*labelled.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(folder / "shapley-curves.svg", metadata={"Date": None})
    plt.close(figure)


def plot(folder: Path, found: Mapping[str, Sequence[Measured]]) -> None:
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scaling"
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for axis, by in zip(axes, ("units", "examples", "depth"), strict=True):
        x = [getattr(m, by) for m in found[by]]
        axis.loglog(x, [m.seconds for m in found[by]], "o-", label="seconds")
        axis.loglog(x, [max(m.megabytes, 1) / 100 for m in found[by]], "s--", label="100 MB")
        axis.set_xlabel(f"{by} (slope {slope(list(found[by]), by, 'seconds'):.2f})")
        axis.grid(True, alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(folder / "scaling.svg", metadata={"Date": None})
    plt.close(figure)


def write(
    folder: Path,
    found: Sequence[Point],
    raced: Mapping[str, Sequence[Race]],
    speeds: Sequence[Throughput],
    passed: Mapping[str, Mapping[str, float]],
    scaled: Mapping[str, Sequence[Measured]],
    further: Mapping[str, str],
) -> None:
    """docs/shapley.md and its plots."""
    methods = {p.method for p in found if p.budget > 8}
    own = [p for p in found if p.method in methods]
    sections = {
        RACES: races(raced),
        EQUAL: summary(own),
        THROUGHPUT: throughputs(speeds),
        PASSES: passes(passed),
        **further,
        SCALING: scaling(scaled),
        POINTS: points(found),
    }
    plot(folder, scaled)
    curves(folder, found)
    sections = {
        title: "\n\n".join(filter(None, [INTRODUCTIONS.get(title, "").strip(), table]))
        for title, table in sections.items()
    }
    text = "\n\n".join([ABOUT.strip(), *(f"## {title}\n\n{table}" for title, table in sections.items())])
    (folder / "shapley.md").write_text(text + "\n")


def redraw(folder: Path) -> None:
    """The curves, from the table at the page's end."""
    _, _, table = (folder / "shapley.md").read_text().partition(f"## {POINTS}\n\n")
    curves(folder, points_of(table[table.index("|") :]))
