"""The rows of all definitions as docs/coverage.md."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from wild.compared import compared
from wild.ours import ENOUGH, OUTPUT, Row

TITLE = """# Coverage

This page lists network definitions of public libraries, and what Secateur can trace, cut, save and export of each.
"""
ABOUT = """\
    python -m benchmarks coverage --data DIR

This command measures all rows and writes this page. `DIR` holds the CIFAR-10 ResNets; without `--data` their rows are
left out. `--help` lists the packages that the command needs. `python -m benchmarks coverage --page` writes the page
from the rows in `benchmarks/results/coverage`.

Networks have random weights and small configurations, except for those under `pretrained/`, which have their trained
weights. Networks under `transformers-defaults/` keep the flags of the default configuration, such as the cache of
decoders. Networks under `plain/` are written from the published architecture, because no library has them. Each
network runs in its own process with one thread of a CPU. Rows that record the machine name an AMD EPYC and torch
2.13.0.

- **export**, **batched**, **trace**: processor seconds. *export* is `torch.export.export` alone. *batched* is the
  same with a variable batch size, and a variable length of token sequences. *trace* is `sc.trace`, which makes the
  batched export, finds the groups, and makes trial cuts. The batched export is timed twice, and the shorter time is
  given; the plain export is timed after it. Decoders are exported without their caches, which torch cannot export.
  Cells are empty where torch cannot export the model, and for decoders in rows measured before caches were left out.
- **can be cut**: the share of the parameters of convolutions, linear, recurrent and attention layers of which a plan
  can remove a part.
- **left**: the parameters after a cut by random scores with a budget of 75 %.
- **differs**: the largest difference between the outputs of the cut network and of the masked run on new inputs,
  relative to the largest output.
- **loaded**: *yes* where the outputs are bit-equal after saving and loading onto a new model.
- **exports**: *yes* where torch exports the cut network in the same way as the dense one, decoders without their
  caches. A stage in bold is the one that failed. Cells are empty where the export was not tried.
- **unchanged**: *yes* where tracing, planning and cutting change nothing of the dense model. Compared are its
  parameters, buffers, attributes, modes, hooks and configuration, bit for bit and object for object, and also the
  example and the random generators of Python, numpy and torch. Cells are empty where this was not compared.
- **raw**: the stage that raised an exception other than a `SecateurError`, or *none*.
- **torch-pruning**: the outcome of version 1.6.1, which removes a quarter of every layer by random importance, with
  the output layer excluded by hand and a limit of 120 s. *works* means that the result is smaller and gives outputs
  of the same shape; torch-pruning has no masked run to compare with. *crash* is an exception, *hang* is the limit of
  120 s, and *untouched* means that nothing was removed. The numbers of attention heads (`num_heads=`) were not set by
  hand. Cells are empty where torch-pruning was not run.
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
        TITLE,
        *_versions(rows, newest),
        ABOUT,
        *_summary(rows, newest),
        "",
        *compared(rows_by_name, before),
        *_table(rows, newest),
        "",
        *_held(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _versions(rows: Sequence[Row], newest: str) -> list[str]:
    """Return a sentence on the versions of the rows, if there are several."""
    counts = Counter(row["version"] for row in rows)
    if len(counts) == 1:
        return []
    earlier = [
        f"{counts[version]} with {_shown(version)}" for version in sorted(counts.keys() - {newest}, key=_release)
    ]
    return [
        f"The rows mix versions: {counts[newest]} of {len(rows)} were measured with Secateur {newest}, "
        f"{_enumerated(earlier)}. Rows of earlier versions are marked * in the table of every network.",
        "",
    ]


def _shown(version: str) -> str:
    """Return a version with its remark, if it has one, in brackets."""
    number, _, remark = version.partition(" ")
    return f"{number} ({remark})" if remark else number


def _enumerated(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def _summary(rows: Sequence[Row], newest: str) -> list[str]:
    fine = [row for row in rows if "failed" not in row]
    raised = [row["name"] for row in rows if row.get("failed") in ("trace", "process", "time")]
    raw = [row["name"] for row in rows if row.get("raw")]
    looked_at = [row for row in rows if "changed" in row]
    changed = [row["name"] for row in looked_at if row["changed"]]
    wide = sum(row.get("share", 0) >= ENOUGH for row in rows)
    peer = Counter(row["peer"]["outcome"] for row in rows if "peer" in row)
    return [
        f"Of {len(rows)} networks, {len(fine)} ({len(fine) / len(rows):.0%}) were cut, verified and loaded again, "
        f"and {sum('export_s' in row for row in fine)} of these were exported again; "
        f"{_listed(raised, 'could not be traced')}. "
        f"In {wide} networks at least nine tenths of the layers' parameters can be cut.",
        "",
        f"{_listed(raw, 'raised an exception that is no SecateurError')}. Of {len(looked_at)} models that were "
        f"compared before and after, {_listed(changed, 'had changed')}.",
        "",
        *_tracing(rows, newest),
        "",
        "Outcomes of torch-pruning: " + ", ".join(f"{count} {outcome}" for outcome, count in peer.most_common()) + ".",
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
    time += f"it took {_ratios(ours, 'batched_s')} the batched export."
    if older:
        time += f" In all rows, of which {older} are older, these are {_ratios(rows, 'export_s')} and "
        time += (
            f"{_ratios(rows, 'batched_s')}. The slowest networks are measured again first, so the newest rows are "
            "slower than most."
        )
    return [time, "", *_slowest(rows, newest), SLOW]


LONG = 8
SLOW = """\
Tracing takes long for these reasons. A trial cut is repeated where the model's own code does not accept the cut shape
(EfficientViT, EdgeNeXt), and such a model may be exported once more with all lengths variable (EdgeNeXt, SegFormer). A
model whose code writes to parts of tensors is exported again after torch has decomposed these operators (Swin). A trial
cut runs the network, while an export computes no activations. Trial cuts therefore dominate where one forward pass
takes longer than an export: S3D on clips of 16 x 224 x 224 takes 1.4 exports for a forward pass on two examples, and
tracing takes the time of three for the dense network (one run of the model, and the masks of four trials on one example
each), and of one for the cut ones."""


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
    older = sorted({row["version"] for row in rows} - {newest}, key=_release)
    versions = _enumerated([_shown(version) for version in older])
    note = f"Rows marked * are of version {versions}, the other rows of version {newest}.\n" if older else ""
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


FROZEN = """\
Networks of which less than nine tenths of the layers' parameters can be cut are listed with the groups that are frozen
and the reasons; groups of the outputs are not listed. *As a program* is the share that can be cut with
`as_program=True`."""


def _held(rows: Sequence[Row]) -> list[str]:
    lines = ["## Frozen units and failures", "", FROZEN, ""]
    for row in rows:
        if "failed" in row:
            lines.append(f"- **{row['name']}** failed at {row['failed']}: {_plain(row['error'])}")
        if row.get("changed"):
            lines.append(f"- **{row['name']}** was changed: {', '.join(f'`{path}`' for path in row['changed'][:5])}")
        if row.get("share", 1) < ENOUGH:
            more = f", {row['program_share']:.0%} as a program" if "program_share" in row else ""
            reasons = _reasons(row)
            lines += [f"- **{row['name']}**, {row['share']:.0%} can be cut{more}{':' if reasons else ''}", *reasons]
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
