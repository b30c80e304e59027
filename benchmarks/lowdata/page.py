"""The results as tables and plots: docs/lowdata.md."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rows import markdown_table, read_rows

from lowdata import page_texts
from lowdata.labels import methods_of, repair_label
from lowdata.plots import plot_accuracies

Row = dict[str, Any]
SUMMARIZED = (
    ("obs", "none"), ("obs", "refit"), ("obs", "refit, adapt"), ("obs", "refit, adapt, tune"),
    ("torch-pruning L2", "batch norm"), ("torch-pruning L2", "300 steps"),
)  # fmt: skip
BUDGETS = (0.75, 0.5, 0.35, 0.25, 0.12)


def write_page(results: Path, docs: Path) -> None:
    """Write the page and its plots.

    Args:
        results: the folder of the rows.
        docs: the folder of the page.
    """
    rows = read_rows(*sorted(results.glob("*.jsonl")))
    sections = [
        page_texts.ABOUT,
        "## Accuracy at each budget\n",
        page_texts.ACCURACIES,
        _accuracies(rows),
        "## Loss of accuracy, mean over networks and seeds\n",
        page_texts.DROPS,
        _drops(rows),
    ]
    if any("(uniform)" in row["method"] for row in rows):
        sections += ["## Criteria under the same allocation and repair\n", page_texts.RANKED, _criteria(rows)]
    if any(row["examples"] not in (0, 256) for row in rows):
        sections += ["## Number of images\n", page_texts.EXAMPLES, _example_counts(rows)]
    sections += ["![accuracy against MACs](lowdata-macs.svg)"]
    plot_accuracies(rows, docs / "lowdata-macs.svg", "fraction of the MACs", lambda row: row["macs"])
    if any("latency 32" in row for row in rows):
        sections += ["\n## Latency\n", page_texts.LATENCY, _latencies(rows)]
        sections += ["![accuracy against latency](lowdata-latency.svg)"]
        label = "fraction of the time, batch of 32"
        plot_accuracies(rows, docs / "lowdata-latency.svg", label, lambda row: row.get("latency 32"))
    (docs / "lowdata.md").write_text("\n".join(sections) + "\n")


def _accuracies(rows: Sequence[Row]) -> str:
    """Return the mean accuracies over seeds, a table for each network."""
    tables = []
    for network in dict.fromkeys(row["network"] for row in rows):
        measured = [row for row in rows if row["network"] == network and row["examples"] in (0, 256)]
        dense = ", ".join(f"{row['accuracy']:.2%}" for row in measured if row["method"] == "dense")
        tables.append(f"**{network}**, dense network {dense}.\n\n{_accuracy_table(measured)}")
    return "\n".join(tables)


def _accuracy_table(rows: Sequence[Row]) -> str:
    budgets = sorted({row["keep"] for row in rows if row["method"] == "obs"}, reverse=True)
    lines = []
    for method, repair in methods_of(rows):
        chosen = [row for row in rows if (row["method"], row["repair"]) == (method, repair)]
        accuracies = [[row["accuracy"] for row in chosen if row["keep"] == keep] for keep in budgets]
        seeds = max(len(values) for values in accuracies)
        lines.append([f"{method}, {repair_label(repair)} ({seeds})", *map(_percent, accuracies)])
    return _table(["", *(f"{keep:.0%}" for keep in budgets)], lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return markdown_table(header, lines) + "\n"


def _percent(values: Sequence[float]) -> str:
    return f"{mean(values) * 100:.1f}" if values else ""


def _drops(rows: Sequence[Row]) -> str:
    """Return the points below the dense network, the mean over networks of the means over their seeds."""
    dense = {(row["network"], row["seed"]): row["accuracy"] for row in rows if row["method"] == "dense"}
    drops: defaultdict[tuple[str, str, float], dict[str, list[float]]] = defaultdict(dict)
    for row in rows:
        if row["examples"] == 256:
            key = row["method"], row["repair"], row["keep"]
            points = (dense[row["network"], row["seed"]] - row["accuracy"]) * 100
            drops[key].setdefault(row["network"], []).append(points)
    lines = []
    for method, repair in SUMMARIZED:
        means = [[mean(points) for points in drops[method, repair, keep].values()] for keep in BUDGETS]
        if any(means):
            cells = [f"{mean(values):.2f}" if values else "" for values in means]
            lines.append([f"{method}, {repair_label(repair)}", *cells])
    return _table(["points lost", *(f"{keep:.0%}" for keep in BUDGETS)], lines)


def _criteria(rows: Sequence[Row]) -> str:
    """Return the accuracies of criteria where every group loses the same share."""
    uniform = [row for row in rows if "(uniform)" in row["method"]]
    networks = list(dict.fromkeys(row["network"] for row in uniform))
    columns = [(network, keep) for network in networks for keep in sorted({r["keep"] for r in uniform}, reverse=True)]
    lines = []
    for method in dict.fromkeys(row["method"] for row in uniform):
        for repair in ("none", "refit, adapt"):
            chosen = [row for row in uniform if (row["method"], row["repair"]) == (method, repair)]
            cells = [
                _percent([row["accuracy"] for row in chosen if (row["network"], row["keep"]) == column])
                for column in columns
            ]
            if any(cells):
                lines.append([f"{method.removesuffix(' (uniform)')}, {repair_label(repair)}", *cells])
    return _table(["", *(f"{network} {keep:.0%}" for network, keep in columns)], lines)


def _example_counts(rows: Sequence[Row]) -> str:
    """Return the accuracies after the default repair by the number of images."""
    chosen = [row for row in rows if (row["method"], row["repair"]) == ("obs", "refit, adapt") and row["seed"] == 0]
    counts = sorted({row["examples"] for row in chosen})
    lines = []
    for network in dict.fromkeys(row["network"] for row in chosen):
        for keep in (0.5, 0.25):
            measured = [row for row in chosen if (row["network"], row["keep"]) == (network, keep)]
            cells = [_percent([row["accuracy"] for row in measured if row["examples"] == count]) for count in counts]
            lines.append([f"{network}, {keep:.0%} of the MACs", *cells])
    return _table(["images; refit, adapt", *map(str, counts)], lines)


def _latencies(rows: Sequence[Row]) -> str:
    timed = [row for row in rows if "latency 32" in row and row["seed"] == 0 and row["examples"] == 256]
    lines = []
    for row in timed:
        ratios = [row[f"latency {images}"] for images in (1, 32)]
        cells = [f"{ratio:.2f} ({row['macs'] / ratio:.2f})" for ratio in ratios]
        lines.append([f"{row['network']}, {row['method']}, {row['macs']:.0%} of the MACs", *cells])
    return _table(["", "1 image", "32 images"], lines)
