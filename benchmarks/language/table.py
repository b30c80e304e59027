"""Print the rows of the language benchmark as the tables of docs/language.md.

    python -m benchmarks language.table [--rows FILE]

One table for each number of sequences and of test tokens, processor and version: the perplexity over the dense one, for
every method and budget, before and after the repair; then seconds, passes, memory and tokens in a second at the first
budget.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from provenance import results_folder
from rows import read_rows

from language.subject import Row

Setting = tuple[int, int, str, str]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=results_folder("language") / "rows.jsonl")
    args = parser.parse_args()
    by_setting: dict[Setting, list[Row]] = defaultdict(list)
    for row in read_rows(args.rows):
        device, version = row.get("device", row["run"]["processor"]), row["run"]["version"]
        by_setting[row["sequences"], row["test_tokens"], device, version].append(row)
    for (sequences, tokens, device, version), rows in by_setting.items():
        print(f"{sequences} sequences, {tokens:,} test tokens, {device}, version {version}\n")
        print("\n".join(perplexities(rows)), end="\n\n")
        print("\n".join(costs(rows)), end="\n\n")


def perplexities(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of perplexities."""
    dense = next((row["perplexity"] for row in rows if row["method"] == "dense"), None)
    budgets = sorted({row["budget"] for row in rows if "budget" in row})
    lines = _heading(["method", "repair", *(f"{budget:.0%} removed" for budget in budgets)])
    lines += [] if dense is None else [_markdown_line(["dense", "", *([f"{dense:.2f}"] * len(budgets))])]
    for method, repair in dict.fromkeys((row["method"], row["repair"]) for row in rows if "budget" in row):
        values = {row["budget"]: row for row in rows if (row["method"], row.get("repair")) == (method, repair)}
        cells = [_perplexity(values.get(budget), dense) for budget in budgets]
        lines.append(_markdown_line([method, repair, *cells]))
    return lines


def costs(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of costs, of each method at the budget that was run first."""
    passed = next((row["pass_seconds"] for row in rows if row["method"] == "dense"), None)
    lines = _heading(["method", "repair", "removed", "seconds", "passes", "GB", "tokens a second"])
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        if "perplexity" in row:
            first.setdefault((row["method"], row["repair"]), row)
    for (method, repair), row in first.items():
        seconds = row.get("seconds", row.get("pass_seconds"))
        passes = "" if passed is None else f"{seconds / passed:.0f}"
        removed = f"{row['removed']:.0%}" if "removed" in row else ""
        memory, speed = f"{row['peak_bytes'] / 1e9:.1f}", f"{row['tokens_per_second']:,.0f}"
        lines.append(_markdown_line([method, repair, removed, f"{seconds:.1f}", passes, memory, speed]))
    return lines


def _perplexity(row: Row | None, dense: float | None) -> str:
    if row is None:
        return ""
    if "perplexity" not in row:
        return str(row.get("failed", "failed"))
    over = "" if dense is None else f" ({row['perplexity'] / dense:.2f} x)"
    return f"{row['perplexity']:.1f}{over}"


def _heading(titles: Sequence[str]) -> list[str]:
    return [_markdown_line(titles), "|---|---" + "|--:" * (len(titles) - 2) + "|"]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
