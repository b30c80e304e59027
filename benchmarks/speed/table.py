"""The measurements as tables for docs/benchmarks.md: one for each budget and number of threads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import read_rows

from speed.methods import METHODS
from speed.subjects import SUBJECTS

HEADER = (
    "| network | method | MACs | in steps | accuracy (dense) | eager, 1 image | eager, 32 | onnxruntime, 1 | "
    "onnxruntime, 32 |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
)
BUDGETS = {"macs": "Half of the MACs", "latency": "Half of the time"}
TITLES = {
    "demo": "demo", "vgg": "VGG-like", "separable": "depthwise-separable", "resnet20": "ResNet-20",
    "resnet56": "ResNet-56", "mobilenet": "MobileNetV2 at 224, 64 photos",
}  # fmt: skip
COLUMNS = [(runtime, batch) for runtime in ("eager", "onnxruntime") for batch in (1, 32)]
Row = dict[str, Any]


def speed_tables(folder: Path) -> str:
    """Return the tables of the rows in a folder: speed-ups, each with its 95 % interval.

    Args:
        folder: a folder of files of rows as lines of JSON.
    """
    rows = read_rows(*folder.glob("*.jsonl"))
    order = list(SUBJECTS), list(METHODS)
    rows.sort(key=lambda row: (order[0].index(row["network"]), order[1].index(row["method"])))
    threads = sorted({speed["threads"] for row in rows for speed in row.get("speeds", ())})
    sections = []
    for budget, title in BUDGETS.items():
        for count in threads:
            measured = [row for row in rows if row["budget"] == budget and _is_shown(row, count, threads)]
            text = "one thread" if count == 1 else f"{count} threads"
            sections += [f"{title}, {text}:\n", "\n".join([HEADER, *_lines(measured, count)]), ""] if measured else []
    return "\n".join(sections)


def _is_shown(row: Row, threads: int, all_threads: Sequence[int]) -> bool:
    """Return whether a row was measured on so many threads; failures are shown once."""
    if "failure" in row:
        return threads == all_threads[0]
    return any(speed["threads"] == threads for speed in row["speeds"])


def _lines(rows: Sequence[Row], threads: int) -> list[str]:
    names = [row["network"] for row in rows]
    titles = [TITLES[name] if number == names.index(name) else "" for number, name in enumerate(names)]
    return [f"| {' | '.join([title, *_speed_cells(row, threads)])} |" for title, row in zip(titles, rows, strict=True)]


def _speed_cells(row: Row, threads: int) -> list[str]:
    method = "`prune`" if row["method"] == "secateur" else row["method"]
    if "failure" in row:
        return [method, row["failure"].splitlines()[0].replace("|", "/"), *[""] * 6]
    effective = "" if row["effective"] is None else f"{row['effective']:.0%}"
    cells = [method, f"{row['macs']:.0%}", effective, f"{row['accuracy']:.2%} ({row['dense']:.2%})"]
    speeds = {(speed["runtime"], speed["batch"]): speed for speed in row["speeds"] if speed["threads"] == threads}
    return cells + [_speed_text(speeds[column]) if column in speeds else "" for column in COLUMNS]


def _speed_text(speed: Row) -> str:
    return f"{speed['ratio']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]"
