"""Aligned columns of text."""

from collections.abc import Sequence


def align_columns(rows: Sequence[Sequence[str]], left_aligned: frozenset[int] = frozenset({0})) -> list[str]:
    """Format rows of cells as aligned lines; the columns in `left_aligned` are aligned left, the others right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index in left_aligned else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
