"""The measurements as a table for docs/benchmarks.md."""

import json
from pathlib import Path
from typing import Any

from speed.methods import METHODS
from speed.subjects import SUBJECTS

HEADER = (
    "| network, budget | method | MACs | in steps of 16 | accuracy (dense) | eager, 1 image | eager, 32 | ORT, 1 image "
    "| ORT, 32 |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
)


def table(folder: Path) -> str:
    """A row for each network, budget and method; speeds on one thread and on two, with 95 % intervals."""
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    names = list(SUBJECTS)
    rows.sort(
        key=lambda row: (row["budget"] != "macs", names.index(row["network"]), list(METHODS).index(row["method"]))
    )
    return "\n".join([HEADER, *map(_line, rows)])


def _line(row: dict[str, Any]) -> str:
    start = f"| {row['network']}, half the {'MACs' if row['budget'] == 'macs' else 'time'} | {row['method']} "
    if "failure" in row:
        return f"{start}| {row['failure'].splitlines()[0]} |" + " |" * 6
    effective = "" if row["effective"] is None else f"{row['effective']:.0%}"
    cells = [f"{row['macs']:.0%}", effective, f"{row['accuracy']:.2%} ({row['dense']:.2%})"]
    for runtime in ("eager", "onnxruntime"):
        for batch in (1, 32):
            pair = [speed for speed in row["speeds"] if speed["runtime"] == runtime and speed["batch"] == batch]
            cells.append("; ".join(f"{speed['ratio']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]" for speed in pair))
    return f"{start}| " + " | ".join(cells) + " |"
