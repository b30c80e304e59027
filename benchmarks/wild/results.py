"""Measured rows as JSON lines, one definition a line; a row that is measured again takes the place of the old one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provenance import provenance, results_folder

Row = dict[str, Any]

FOLDER = results_folder("coverage")
NOW, BEFORE = FOLDER / "coverage.jsonl", FOLDER / "coverage-0.7.0.jsonl"


def read_rows(path: Path) -> dict[str, Row]:
    """Rows by the names of their definitions; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def replace_row(path: Path, row: Row) -> None:
    """Write one row; what the old row says of the peer stays if the new one says nothing."""
    rows = read_rows(path)
    peer = {"peer": rows[row["name"]]["peer"]} if "peer" in rows.get(row["name"], {}) else {}
    write_rows(path, {**rows, row["name"]: {**peer, **row, "run": provenance()}}.values())
