"""Small HTML tables for notebooks."""

from collections.abc import Sequence
from html import escape


def html_table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as an HTML table; all text is escaped.

    Args:
        caption: the text above the table.
        rows: the rows, the header first.

    Examples:
        >>> html_table("a & b", [["group"], ["conv1"]])
        '<table><caption>a &amp; b</caption><tr><th>group</th></tr><tr><td>conv1</td></tr></table>'
    """
    tags = ["th", *["td"] * (len(rows) - 1)]
    lines = [
        f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
        for tag, row in zip(tags, rows, strict=True)
    ]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"
