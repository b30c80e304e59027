"""Rows of results: read from and appended to files of JSON lines, and shown as tables of Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from provenance import provenance


def read_rows(*paths: Path) -> list[dict[str, Any]]:
    """Return the rows of files of JSON lines, in the order of the files."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file of JSON lines, with the circumstances of the run in its field `run`."""
    with path.open("a", encoding="utf-8") as file:
        file.write(row_with_provenance(row) + "\n")


def row_with_provenance(row: Mapping[str, Any]) -> str:
    """Return a row as a line of JSON, with the circumstances of the run in its field `run`."""
    return json.dumps({**row, "run": provenance()})


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Return a table of Markdown, without a line break at its end.

    Args:
        header: the titles of the columns.
        lines: the cells of each line.
        texts: the number of columns of text, which come first. The others are numbers, aligned to the right.
    """
    rules = "---|" * texts + "--:|" * (len(header) - texts)
    return "\n".join([f"| {' | '.join(header)} |", f"|{rules}", *(f"| {' | '.join(cells)} |" for cells in lines)])


def spread_text(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean of values with their standard deviation, where there are several; "" where there are none."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"
