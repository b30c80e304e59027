"""The methods of docs/lowdata.md and their labels, in tables and plots."""

from collections.abc import Mapping, Sequence
from typing import Any


def methods_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the methods of rows with their repairs, without those of the comparison of criteria."""
    methods = dict.fromkeys((row["method"], row["repair"]) for row in rows if row["examples"] == 256)
    return [key for key in methods if "(uniform)" not in key[0]]


def repair_label(repair: str) -> str:
    """Return the label of a repair."""
    return "no repair" if repair == "none" else repair
