"""Measured rows as JSON lines, one for each definition; a row that is measured again replaces the old one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provenance import provenance, results_folder
from rows import read_rows

Row = dict[str, Any]

FOLDER = results_folder("coverage")
NOW, BEFORE = FOLDER / "coverage.jsonl", FOLDER / "coverage-0.7.0.jsonl"


def rows_by_name(path: Path) -> dict[str, Row]:
    """Return the rows by the names of their definitions; none where there is no file."""
    return {row["name"]: row for row in read_rows(path)} if path.exists() else {}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows of a file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def replace_row(path: Path, row: Row) -> None:
    """Write one row; the old row's outcome of the peer stays where the new row has none."""
    rows = rows_by_name(path)
    peer = {"peer": rows[row["name"]]["peer"]} if "peer" in rows.get(row["name"], {}) else {}
    write_rows(path, {**rows, row["name"]: {**peer, **row, "run": provenance()}}.values())
