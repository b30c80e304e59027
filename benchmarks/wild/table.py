"""The rows of all definitions as docs/coverage.md."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from wild.compared import compared
from wild.ours import ENOUGH, OUTPUT, Row

ABOUT = """# Coverage

Network definitions of public libraries, random weights in small configurations (those under `pretrained/` with
their trained ones), each in a process of its own with one thread. Those under `transformers-defaults/` keep the flags
of the default configuration, such as the cache of decoders; those under `plain/` are written from the published
architecture, because no library has them. What gave this table:

    python -m benchmarks coverage --data DIR

where `DIR` holds the CIFAR-10 ResNets; it may be left out, and so may be their rows.

- **export**, **batched**, **trace**: processor seconds for `torch.export.export` alone, for the same with a batch size
  that may vary (and a varying length of token sequences), and for `sc.trace`, which makes that second export, finds
  the groups, and cuts the network for trial. Of the second export the faster of two, and the plain one after it.
  Decoders, whose caches torch can't export, are exported without them; empty where torch can't export the model, or
  where a row was measured before that was done.
- **can be cut**: the share of the parameters of convolutions, linear, recurrent and attention layers of which some
  plan can take a part away.
- **left**: parameters after a cut by random scores, 75 % asked for.
- **differs**: the cut network's largest difference from the masked run on fresh inputs, of the largest output.
- **loaded**: bit-equal after saving and loading onto a fresh model. **exports**: torch exports the cut network as it
  exported the dense one, decoders without their caches; empty where it was not tried.
- **unchanged**: after tracing, planning and cutting, the dense model has the same parameters, buffers, attributes,
  modes, hooks and configuration, bit for bit and object for object; so have the example and the random generators of
  Python, numpy and torch.
- **raw**: exceptions other than a `SecateurError`; the stage where one was raised, or *none*.
- **torch-pruning**: version 1.6.1 beside it, a quarter of every layer by random importance, the output layer excluded
  by hand; 120 s at most. *works* says that the result is smaller and gives outputs of the same shape, no more: it has
  no masked run to compare with. Attention heads were not told to it by hand (`num_heads=`). Empty where it was not run.
"""


def as_markdown(rows_by_name: Mapping[str, Row], before: Mapping[str, Row]) -> str:
    """The page: what was reached, what changed, the table, and what is frozen where less than nine tenths can be cut.

    Args:
        rows_by_name: the newest rows.
        before: rows of the version that the newest one is compared with.
    """
    rows = list(rows_by_name.values())
    newest = max((row["version"] for row in rows), key=_release)
    lines = [
        ABOUT,
        *_summary(rows, newest),
        "",
        *compared(rows_by_name, before),
        *_table(rows, newest),
        "",
        *_held(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _summary(rows: Sequence[Row], newest: str) -> list[str]:
    fine = [row for row in rows if "failed" not in row]
    raised = [row["name"] for row in rows if row.get("failed") in ("trace", "process", "time")]
    raw = [row["name"] for row in rows if row.get("raw")]
    looked_at = [row for row in rows if "changed" in row]
    changed = [row["name"] for row in looked_at if row["changed"]]
    wide = sum(row.get("share", 0) >= ENOUGH for row in rows)
    peer = Counter(row["peer"]["outcome"] for row in rows if "peer" in row)
    return [
        f"{len(rows)} networks: {len(fine)} cut, verified and loaded again ({len(fine) / len(rows):.0%}), "
        f"{sum('export_s' in row for row in fine)} of them exported again; "
        f"{_listed(raised, 'could not be traced')}; "
        f"in {wide} at least nine tenths of the layers' parameters can be cut.",
        "",
        f"{_listed(raw, 'raised an exception that is no SecateurError')}. Of {len(looked_at)} models that were looked "
        f"at before and after, {_listed(changed, 'had changed')}.",
        "",
        *_tracing(rows, newest),
        "",
        "torch-pruning: " + ", ".join(f"{count} {outcome}" for outcome, count in peer.most_common()) + ".",
    ]


def _release(version: str) -> tuple[list[int], bool]:
    """Return the order of a version; what was measured on the way to it comes before it."""
    number, _, remark = version.partition(" ")
    return [int(part) for part in number.split(".")], not remark


def _tracing(rows: Sequence[Row], newest: str) -> list[str]:
    """Return how long tracing takes: in the newest rows, and in all rows if some are older."""
    ours = [row for row in rows if row["version"] == newest]
    older = len(rows) - len(ours)
    time = f"Tracing took {_ratios(ours, 'export_s')} the plain export"
    time += f", in the {len(ours)} rows of version {newest}; " if older else "; "
    time += f"{_ratios(ours, 'batched_s')} the export with a batch that may vary."
    if older:
        time += f" In all rows, of which {older} are older, these are {_ratios(rows, 'export_s')} and "
        time += (
            f"{_ratios(rows, 'batched_s')}. Rows are measured again slowest first, so the newest are slower than most."
        )
    return [time, "", *_slowest(rows, newest), SLOW]


LONG = 8
SLOW = """\
Where a model's own code can't say the cut shape, it is tried many times until it is known what it can bear
(EfficientViT, EdgeNeXt), and exported once more with all lengths free (EdgeNeXt, SegFormer). Where it writes to parts
of tensors, or multiplies matrices and adds in one operator, torch takes the program apart, which means exporting it
again (Swin, Mask2Former). An export computes no activations, but a trial cut does: it runs the network twice on two
examples. So trial cuts take the time where one forward takes longer than an export (S3D on clips of 16 x 224 x 224)."""


def _slowest(rows: Sequence[Row], newest: str) -> list[str]:
    """Return the networks whose tracing takes at least eight plain exports."""
    ratios = {row["name"] + ("" if row["version"] == newest else " *"): _ratio(row, "export_s") for row in rows}
    long = sorted(
        ((ratio, name) for name, ratio in ratios.items() if ratio is not None and ratio >= LONG), reverse=True
    )
    named = ", ".join(f"{name} {ratio:.1f}" for ratio, name in long)
    return [f"{len(long)} of {len(rows)} took {LONG} times a plain export or more{': ' + named if named else ''}.", ""]


def _ratio(row: Row, of: str) -> float | None:
    """Return how many exports the tracing of a network took; None where one of both was not measured."""
    return row["trace_s"] / row[of] if row.get(of) and row.get("trace_s") else None


def _listed(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{': ' + ', '.join(names) if names else ''}"


def _ratios(rows: Sequence[Row], of: str) -> str:
    ratios = [ratio for row in rows if (ratio := _ratio(row, of)) is not None]
    return (
        f"{statistics.median(ratios):.1f} times (median; at most twice in {sum(ratio <= 2 for ratio in ratios)} of "
        f"{len(ratios)}; {max(ratios):.0f} times at worst)"
    )


def _table(rows: Sequence[Row], newest: str) -> list[str]:
    older = sorted({row["version"] for row in rows} - {newest})
    note = f"Rows marked * were measured with version {' and '.join(older)} and not again.\n" if older else ""
    times = "| network | export | batched | trace "
    head = f"{times}| groups | can be cut | left | differs | loaded | exports | unchanged | raw | torch-pruning |"
    ruler = "|---|--:|--:|--:|--:|--:|--:|--:|---|---|---|---|---|"
    return ["## Every network", "", note, head, ruler, *(_line(row, newest) for row in rows)]


def _line(row: Row, newest: str) -> str:
    failed = row.get("failed")
    cells = [
        row["name"] + ("" if row["version"] == newest else " *"),
        *(f"{row[key]:.1f}" if key in row else "" for key in ("export_s", "batched_s", "trace_s")),
        str(row.get("groups", "")),
        f"{row['share']:.1%}" if "share" in row else "",
        f"{row['left']:.1%}" if "left" in row else "",
        f"{row['difference']:.0e}" if "difference" in row else "",
        {True: "yes", False: "no"}.get(row.get("loaded"), ""),
        f"**{failed}**" if failed else "yes" if "export_s" in row else "",
        "" if "changed" not in row else "**no**" if row["changed"] else "yes",
        "" if "changed" not in row else f"**{failed}**" if row.get("raw") else "none",
        row.get("peer", {}).get("outcome", ""),
    ]
    return "| " + " | ".join(cells) + " |"


def _held(rows: Sequence[Row]) -> list[str]:
    lines = ["## What is frozen, and what failed", ""]
    for row in rows:
        if "failed" in row:
            lines.append(f"- **{row['name']}** failed at {row['failed']}: {_plain(row['error'])}")
        if row.get("changed"):
            lines.append(f"- **{row['name']}** was changed: {', '.join(f'`{path}`' for path in row['changed'][:5])}")
        if row.get("share", 1) < ENOUGH:
            more = f", {row['program_share']:.0%} as a program" if "program_share" in row else ""
            lines += [f"- **{row['name']}**, {row['share']:.0%} can be cut{more}:", *_reasons(row)]
    return lines


def _reasons(row: Row) -> list[str]:
    names_by_reason: dict[str, list[str]] = {}
    for name, _, operator, _, reason in row.get("frozen", ()):
        if OUTPUT not in reason:
            text = f"{operator}: {_plain(reason)}" if operator else _plain(reason)
            names_by_reason.setdefault(text, []).append(name)
    return [
        f"  - {', '.join(f'`{name}`' for name in names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: "
        f"{reason}"
        for reason, names in names_by_reason.items()
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")
