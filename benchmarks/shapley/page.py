"""The measurements as tables for docs/shapley.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from rows import markdown_table

from shapley import page_texts
from shapley.curves import Race
from shapley.owen import OwenMeasurement
from shapley.plots import plot_curves, plot_scaling
from shapley.points import Point
from shapley.precision import CompiledMeasurement, PrecisionMeasurement
from shapley.scaling import ScalingMeasurement, slope
from shapley.speed import Throughput


def points_table(points: Sequence[Point]) -> str:
    """Return each method's error, one line for each group and budget."""
    header = ("network", "group", "method", "coalitions", "evaluations", "seconds", "error", "rank correlation")
    lines = [
        [p.subject, p.group, p.method, f"{p.coalitions:,.0f}", f"{p.evaluations:,.0f}", f"{p.seconds:.2f}",
         f"{p.error:.3f}", f"{p.correlation:.2f}"]
        for p in points
    ]  # fmt: skip
    return f"{page_texts.CURVES}\n\n{markdown_table(header, lines, texts=3)}"


def ratios_table(points: Sequence[Point]) -> str:
    """Return each estimator's error as a part of plain orders' at equal evaluations, the geometric mean over groups."""
    budgets = sorted({point.budget for point in points})
    plain = {(p.subject, p.group, p.budget): p.error for p in points if p.method == "permutation"}
    lines = []
    for method in dict.fromkeys(point.method for point in points):
        means = [
            geometric_mean(
                p.error / plain[p.subject, p.group, p.budget]
                for p in points
                if p.method == method and p.budget == budget
            )
            for budget in budgets
        ]
        lines.append([method, *(f"{ratio:.2f}" for ratio in means)])
    return markdown_table(["estimator", *(f"{budget} per unit" for budget in budgets)], lines)


def races_table(races: Mapping[str, Sequence[Race]]) -> str:
    """Return the time of the authors' five orders, and ours to the same error, by the number of examples."""
    header = "| examples | group | units | authors' error | seconds | our error | seconds | times faster |"
    lines = [header, "|--:|---|--:|--:|--:|--:|--:|--:|"]
    for examples, of_groups in races.items():
        lines += [
            f"| {examples} | {r.group} | {r.units} | {r.error:.3f} | {r.seconds:.1f} | {r.our_error:.3f} | "
            f"{r.our_seconds:.2f} | {r.seconds / r.our_seconds:.0f} |"
            for r in of_groups
        ]
        theirs, ours = sum(r.seconds for r in of_groups), sum(r.our_seconds for r in of_groups)
        lines.append(f"| {examples} | **all** | | | {theirs:.1f} | | {ours:.2f} | **{theirs / ours:.0f}** |")
    return "\n".join(lines)


def throughput_table(throughputs: Sequence[Throughput]) -> str:
    """Return the times of a coalition and of the bare suffix, group by group."""
    header = ("group", "us for a coalition", "us for an image through the bare suffix", "throughput")
    lines = [[t.group, f"{t.coalition:.1f}", f"{t.bare:.1f}", f"{t.bare / t.coalition:.0%}"] for t in throughputs]
    return markdown_table(header, lines)


def passes_table(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return the times of one-pass criteria, network by network."""
    lines = [[name, *(f"{ratio:.2f}" for ratio in of_criteria.values())] for name, of_criteria in ratios.items()]
    return markdown_table(["network", "taylor", "sensitivity", "apoz"], lines)


def scaling_section(measurements: Mapping[str, Sequence[ScalingMeasurement]]) -> str:
    """Return the times and the memory by units, examples, depth and memory limit."""
    header = ("units", "examples", "depth", "limit, MB", "seconds", "grew by, MB")
    lines = [
        [str(m.units), str(m.examples), str(m.depth), str(m.limit), f"{m.seconds:.2f}", f"{m.megabytes:.0f}"]
        for series in measurements.values()
        for m in series
    ]
    slopes = ", ".join(
        f"{slope(list(measurements[by]), by, 'seconds'):.2f} for {by}" for by in ("units", "examples", "depth")
    )
    table = markdown_table(header, lines, texts=0)
    return f"Slopes of the time on a log-log plot are: {slopes}.\n\n{table}\n\n![scaling](scaling.svg)"


def precision_section(precisions: Sequence[PrecisionMeasurement], compiled: Sequence[CompiledMeasurement]) -> str:
    """Return the gains by bfloat16 and by a compiler."""
    header = ("group", "us for a coalition, float32", "bfloat16", "times faster", "error, float32", "bfloat16")
    lines = []
    for measurement in precisions:
        (plain, low), (error, low_error) = measurement.microseconds, measurement.errors
        lines.append(
            [measurement.group, f"{plain:.1f}", f"{low:.1f}", f"{plain / low:.1f}", f"{error:.3f}", f"{low_error:.3f}"]
        )
    compiled_lines = [[c.precision, f"{c.eager:.1f}", f"{c.compiled:.1f}", f"{c.seconds:.1f}"] for c in compiled]
    return "\n\n".join(
        [
            page_texts.LOW_PRECISION,
            markdown_table(header, lines),
            page_texts.COMPILED.strip(),
            markdown_table(["", "ms", "compiled, ms", "to compile, s"], compiled_lines),
        ]
    )


def owen_section(measurements: Sequence[OwenMeasurement]) -> str:
    """Return the errors of Owen values by either estimator."""
    header = "| network | units | estimator | evaluations | seconds | error |\n|---|--:|---|--:|--:|--:|"
    lines = [
        f"| {m.subject} | {m.players} | {m.method} | {m.evaluations:,} | {m.seconds:.1f} | {m.error:.3f} |"
        for m in measurements
    ]
    return "\n".join([page_texts.WHOLE_GAME, "", header, *lines])


@dataclass(frozen=True)
class PageMeasurements:
    """All measurements of the page.

    Args:
        points: estimates of the Shapley values of groups.
        races: times to the error of five orders, by the number of examples.
        throughputs: times of coalitions.
        passes: times of one-pass criteria by network and criterion.
        scaling: times and memory by the size that varies.
        sections: further sections by their titles.
    """

    points: Sequence[Point]
    races: Mapping[str, Sequence[Race]]
    throughputs: Sequence[Throughput]
    passes: Mapping[str, Mapping[str, float]]
    scaling: Mapping[str, Sequence[ScalingMeasurement]]
    sections: Mapping[str, str]


def write_shapley_page(folder: Path, measured: PageMeasurements) -> None:
    """Write docs/shapley.md and its plots."""
    methods = {point.method for point in measured.points if point.budget > 8}
    sections = {
        page_texts.RACES: races_table(measured.races),
        page_texts.EQUAL: ratios_table([point for point in measured.points if point.method in methods]),
        page_texts.THROUGHPUT: throughput_table(measured.throughputs),
        page_texts.PASSES: passes_table(measured.passes),
        **measured.sections,
        page_texts.SCALING: scaling_section(measured.scaling),
        page_texts.POINTS: points_table(measured.points),
    }
    plot_scaling(folder, measured.scaling)
    plot_curves(folder, measured.points)
    introductions = page_texts.INTRODUCTIONS
    texts = [
        "\n\n".join(filter(None, [f"## {title}", introductions.get(title, "").strip(), table]))
        for title, table in sections.items()
    ]
    (folder / "shapley.md").write_text("\n\n".join([page_texts.ABOUT.strip(), *texts]) + "\n")


def redraw_curves(folder: Path) -> None:
    """Draw the curves again, from the table at the end of the page."""
    _, _, table = (folder / "shapley.md").read_text().partition(f"## {page_texts.POINTS}\n\n")
    plot_curves(folder, read_points(table[table.index("|") :]))


def read_points(table: str) -> list[Point]:
    """Return the points of a table, without their budgets."""
    points = []
    for line in table.strip().splitlines()[2:]:
        subject, group, method, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        points.append(Point(method, subject, group, 0, *(float(number.replace(",", "")) for number in numbers)))
    return points
