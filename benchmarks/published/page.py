"""The page of published networks, docs/published.md."""

import statistics
from collections.abc import Iterable
from pathlib import Path

from rows import read_rows

from published.allocation_tables import chosen_table, excess_table, version_table
from published.camvid_lean import lean_table
from published.methods import BOUND, LABELS
from published.page_texts import ALLOCATIONS, ALONE, INTRODUCTION, LEAN, REASONS, SCALE, VERSIONS
from published.photo_tables import is_of_photos, photo_sections

GOALS = {
    ("ResNet-56", 256, 0.5): 1.0,
    ("ResNet-56", 256, 0.35): 2.5,
    ("ResNet-20", 256, 0.75): 1.0,
    ("ResNet-20", 256, 0.5): 3.0,
    ("ResNet-20", 1024, 0.5): 2.0,
    ("ESPNet", 62, 0.75): 3.0,
}
"""The points of accuracy that the default may lose: of a network, with so many images, at a fraction of the MACs."""
FEWER = 0.03  # of the MACs than the budget allows, where a cell says how many there are
MEASURES = {"ESPNet": "mean intersection over union"}


def write_published_page(rows: Path, allocations: Path, lean: Path, folder: Path) -> None:
    """Write published.md to a folder from rows of JSON: of methods, of single allocations, and of LEAN on CamVid."""
    known = read_rows(rows)
    dense = {row["network"]: row["accuracy"] for row in known if row["method"] == "dense"}
    latest = {_setting_of(row): row for row in known if row["method"] != "dense" and "error" not in row}
    sections = [INTRODUCTION, _machines(latest.values())]
    for network, accuracy in dense.items():
        measured = [row for row in latest.values() if row["network"] == network]
        if measured and not is_of_photos(network):
            sections.append(_section(network, accuracy, [row for row in measured if row["method"] != BOUND]))
            sections += [_bound_line(row, accuracy) for row in measured if row["method"] == BOUND]
    of_dense = {row["network"]: row for row in known if row["method"] == "dense" and is_of_photos(row["network"])}
    sections += photo_sections(of_dense.values(), list(latest.values()))
    sections += _dense_alone(dense, latest.values())
    if lean.exists():
        sections += [LEAN, f"{lean_table(read_rows(lean))}\n"]
    sections += [f"{_goals_table(dense, latest.values())}\n{REASONS}", SCALE]
    failed = {(row["network"], row["method"]): row["error"] for row in known if "error" in row}
    sections += [f"{LABELS[method]} fails on {network}: `{error}`\n" for (network, method), error in failed.items()]
    if allocations.exists():
        sections += _allocation_sections(read_rows(allocations))
    (folder / "published.md").write_text("\n".join(sections), encoding="utf-8")


def _allocation_sections(cases: list[dict[str, object]]) -> list[str]:
    excess, versions = f"{excess_table(cases)}\n", f"{version_table(cases)}\n"
    return [ALLOCATIONS, excess, VERSIONS, versions, chosen_table(cases)]


def _dense_alone(dense: dict[str, float], rows: Iterable[dict[str, object]]) -> list[str]:
    """Return a section on the networks of which the dense one alone was measured; none without such networks."""
    measured = {str(row["network"]).partition(", ")[0] for row in rows}
    lines = {
        f"- {network}: {MEASURES.get(network, 'accuracy')} {accuracy:.1%}.": None
        for network, accuracy in ((name.partition(", ")[0], value) for name, value in dense.items())
        if network not in measured
    }
    return [ALONE + "\n".join(lines) + "\n"] if lines else []


def _setting_of(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("network", "keep", "images", "draw", "method"))


def _machines(rows: Iterable[dict[str, dict[str, object]]]) -> str:
    runs = sorted(
        {
            f"version {row['run']['version']}, torch {row['run']['torch']}, {row['run']['processor']}, one thread"
            + (f", steps of {row['step']} channels" if "step" in row else "")
            for row in rows
        }
    )
    return f"- **Measured with** {'; '.join(runs)}.\n"


def _section(network: str, dense: float, rows: list[dict[str, float]]) -> str:
    """Return the tables of a network, one for each number of images."""
    measure = MEASURES.get(network, "accuracy")
    lines = [f"## {network}", "", f"Of the dense network: {measure} {dense:.2%}."]
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    for images in sorted({row["images"] for row in rows}):
        of_images = [row for row in rows if row["images"] == images]
        lines += ["", f"{images:,} examples; {measure} in %, and in brackets the number of draws.", ""]
        costs = {"seconds": "processor seconds"}
        if any("passes" in row for row in of_images):
            costs["passes"] = "passes"
        columns = ["method", *(f"{keep:.0%} of the MACs" for keep in keeps), *costs]
        lines.append(f"| {' | '.join(columns)} |\n|---|" + "--:|" * (len(columns) - 1))
        for method in LABELS:
            of_method = [row for row in of_images if row["method"] == method]
            if of_method:
                cells = [_accuracy_cell([row for row in of_method if row["keep"] == keep]) for keep in keeps]
                cells += [_mean_of(of_method, name) for name in costs.values()]
                lines.append(f"| {LABELS[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_of(rows: list[dict[str, float]], name: str) -> str:
    """Return the mean of a value over the rows that have it; "" where none has."""
    values = [row[name] for row in rows if name in row]
    return f"{statistics.mean(values):.0f}" if values else ""


def _bound_line(row: dict[str, float], dense: float) -> str:
    """Return a paragraph on the smallest network within a bound on the metric."""
    measure = MEASURES.get(str(row["network"]), "accuracy")
    return (
        f"The smallest network that loses at most {-100 * row['keep']:.0f} points of {measure}, by `metric=` and the "
        f"labels of a quarter of {row['images']} labelled examples, has {row['macs']:.0%} of the MACs. It loses "
        f"{100 * (dense - row['accuracy']):.1f} points on the test images ({row['accuracy']:.2%}; "
        f"{row['processor seconds']:.0f} s, {row['passes']:.0f} passes).\n"
    )


def _goals_table(dense: dict[str, float], rows: Iterable[dict[str, float]]) -> str:
    """Return a table of the points that the default loses in the mean over draws, beside the goals."""
    lines = ["## Goals", "", "| network, images | MACs | points lost, mean (draws) | goal |", "|---|--:|--:|--:|"]
    of_default = [row for row in rows if row["method"] == "default"]
    for (network, images, keep), goal in GOALS.items():
        key = (network, images, keep)
        lost = [
            100 * (dense[network] - row["accuracy"])
            for row in of_default
            if (row["network"], row["images"], row["keep"]) == key
        ]
        if lost:
            mean = f"{statistics.mean(lost):.1f} ({len(lost)})"
            lines.append(f"| {network}, {images:,} | {keep:.0%} | {mean} | {goal:.1f} |")
    return "\n".join(lines) + "\n"


def _accuracy_cell(rows: list[dict[str, float]]) -> str:
    """Return the mean accuracy over draws with its standard error where there are several."""
    if not rows:
        return ""
    values = [100 * row["accuracy"] for row in rows]
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    macs = statistics.mean(row["macs"] for row in rows)
    fewer = f"; {macs:.0%} of the MACs" if macs < rows[0]["keep"] - FEWER else ""
    return f"{statistics.mean(values):.2f}{error} ({len(values)}{fewer})"
