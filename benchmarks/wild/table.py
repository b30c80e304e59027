"""The rows of all definitions as docs/coverage.md."""

import statistics
from collections import Counter
from collections.abc import Sequence

from wild.ours import ENOUGH, Row

ABOUT = """# Coverage

Network definitions of public libraries, random weights in small configurations (those under `pretrained/` with
their trained ones), each in a process of its own with one thread, two side by side. What gave this table:

    python benchmarks/wild

- **export**, **batched**, **trace**: seconds for `torch.export.export` alone, for the same with a batch size that may
  vary (and a varying length of token sequences), and for `sc.trace`, which makes that second export, finds the
  groups, and cuts the network for trial. Of either export the faster of two.
- **can be cut**: the share of the parameters of convolutions, linear, recurrent and attention layers of which some
  plan can take a part away.
- **left**: parameters after a cut by random scores, 75 % asked for.
- **differs**: the cut network's largest difference from the masked run on fresh inputs, of the largest output.
- **loaded**: bit-equal after saving and loading onto a fresh model. **exports**: so does the cut network.
- **torch-pruning**: version 1.6.1 beside it, a quarter of every layer by random importance, the output layer excluded
  by hand; 120 s at most. *works* says that the result is smaller and gives outputs of the same shape, no more: it has
  no masked run to compare with. Attention heads were not told to it by hand (`num_heads=`); its column is of an
  earlier run on the same machine (`--peer-from`).
"""


def as_markdown(rows: Sequence[Row]) -> str:
    """The page: what was reached, the table, and what is frozen where less than nine tenths can be cut."""
    lines = [ABOUT, *_summary(rows), "", *_table(rows), "", *_held(rows)]
    return "\n".join(lines).rstrip() + "\n"


def _summary(rows: Sequence[Row]) -> list[str]:
    fine = [row for row in rows if "failed" not in row]
    raised = [row["name"] for row in rows if row.get("failed") in ("trace", "process", "time")]
    wide = sum(row.get("share", 0) >= ENOUGH for row in rows)
    peer = Counter(row["peer"]["outcome"] for row in rows)
    return [
        f"{len(rows)} networks: {len(fine)} cut, verified, loaded and exported again ({len(fine) / len(rows):.0%}); "
        f"{len(raised)} raised an exception while they were traced{': ' + ', '.join(raised) if raised else ''}; "
        f"in {wide} at least nine tenths of the layers' parameters can be cut.",
        "",
        f"Tracing took {_ratios(rows, 'batched_s')} the export with a batch that may vary, and "
        f"{_ratios(rows, 'export_s')} the plain one. Where a model's own code can't say the cut shape, it is tried "
        "many times until it is known what it can bear.",
        "",
        "torch-pruning: " + ", ".join(f"{count} {outcome}" for outcome, count in peer.most_common()) + ".",
    ]


def _ratios(rows: Sequence[Row], of: str) -> str:
    ratios = [row["trace_s"] / row[of] for row in rows if row.get(of) and row.get("trace_s")]
    return (
        f"{statistics.median(ratios):.1f} times (median; at most twice in {sum(ratio <= 2 for ratio in ratios)} of "
        f"{len(ratios)}; {max(ratios):.0f} times at worst)"
    )


def _table(rows: Sequence[Row]) -> list[str]:
    times = "| network | export | batched | trace "
    head = f"{times}| groups | can be cut | left | differs | loaded | exports | torch-pruning |"
    return [head, "|---|--:|--:|--:|--:|--:|--:|--:|---|---|---|", *(_line(row) for row in rows)]


def _line(row: Row) -> str:
    failed = row.get("failed")
    cells = [
        row["name"],
        f"{row['export_s']:.1f}" if "export_s" in row else "",
        f"{row['batched_s']:.1f}" if "batched_s" in row else "",
        f"{row['trace_s']:.1f}" if "trace_s" in row else "",
        str(row.get("groups", "")),
        f"{row['share']:.1%}" if "share" in row else "",
        f"{row['left']:.1%}" if "left" in row else "",
        f"{row['difference']:.0e}" if "difference" in row else "",
        {True: "yes", False: "no"}.get(row.get("loaded"), ""),
        "yes" if failed is None else f"**{failed}**",
        row["peer"]["outcome"],
    ]
    return "| " + " | ".join(cells) + " |"


def _held(rows: Sequence[Row]) -> list[str]:
    lines = ["## What is frozen, and what failed", ""]
    for row in rows:
        if "failed" in row:
            lines.append(f"- **{row['name']}** failed at {row['failed']}: {_plain(row['error'])}")
        if row.get("share", 1) < ENOUGH:
            more = f", {row['program_share']:.0%} as a program" if "program_share" in row else ""
            lines += [f"- **{row['name']}**, {row['share']:.0%} can be cut{more}:", *_reasons(row)]
    return lines


def _reasons(row: Row) -> list[str]:
    found: dict[str, list[str]] = {}
    for name, _, operator, _, reason in row["frozen"]:
        if "is the network's output" not in reason:
            found.setdefault(f"{operator}: {_plain(reason)}" if operator else _plain(reason), []).append(name)
    return [
        f"  - {', '.join(f'`{name}`' for name in names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: "
        f"{reason}"
        for reason, names in found.items()
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")
