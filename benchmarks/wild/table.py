"""The rows of all definitions as docs/coverage.md."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from wild.compared import changes_section
from wild.ours import ENOUGH, OUTPUT, Row
from wild.page_texts import ABOUT, FROZEN, SLOW, TITLE


def as_markdown(rows_by_name: Mapping[str, Row], before: Mapping[str, Row]) -> str:
    """Return the page: a summary, the changes, the table of every network, and the frozen units.

    Args:
        rows_by_name: the newest rows.
        before: rows of an earlier version.
    """
    rows = list(rows_by_name.values())
    newest = max((row["version"] for row in rows), key=_release)
    lines = [
        TITLE,
        *_mixed_versions(rows, newest),
        ABOUT,
        *_summary(rows, newest),
        "",
        *changes_section(rows_by_name, before),
        *_network_table(rows, newest),
        "",
        *_frozen_lines(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _mixed_versions(rows: Sequence[Row], newest: str) -> list[str]:
    """Return a sentence on the versions of the rows, if there are several."""
    counts = Counter(row["version"] for row in rows)
    if len(counts) == 1:
        return []
    earlier = [
        f"{counts[version]} with {_version_text(version)}" for version in sorted(counts.keys() - {newest}, key=_release)
    ]
    return [
        f"The rows mix versions: {counts[newest]} of {len(rows)} were measured with Secateur {newest}, "
        f"{_enumerated(earlier)}. Rows of earlier versions are marked * in the table of every network.",
        "",
    ]


def _version_text(version: str) -> str:
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
    """Return the key that orders versions; one with a remark, such as a revision on the way to it, comes before it."""
    numbers, _, remark = version.partition(" ")
    return [int(number) for number in numbers.split(".")], not remark


def _tracing(rows: Sequence[Row], newest: str) -> list[str]:
    """Return the times of tracing as multiples of exports: in the newest rows, and in all rows if some are older."""
    ours = [row for row in rows if row["version"] == newest]
    older = len(rows) - len(ours)
    plain, batched = (_ratio_summary(ours, key) for key in ("export_s", "batched_s"))
    time = f"Tracing took {plain} the plain export"
    time += f", in the {len(ours)} rows of version {newest}; " if older else "; "
    time += f"it took {batched} the batched export."
    if older:
        plain, batched = (_ratio_summary(rows, key) for key in ("export_s", "batched_s"))
        time += f" In all rows, of which {older} are older, these are {plain} and {batched}. "
        time += (
            "The newest rows are no sample of all networks: they are new ones, and slow ones that were measured again."
        )
    return [time, "", *_slowest(rows, newest), SLOW]


LONG = 8


def _slowest(rows: Sequence[Row], newest: str) -> list[str]:
    """Return the networks whose tracing takes at least eight plain exports."""
    ratios = {row["name"] + ("" if row["version"] == newest else " *"): _trace_ratio(row, "export_s") for row in rows}
    long = sorted(
        ((ratio, name) for name, ratio in ratios.items() if ratio is not None and ratio >= LONG), reverse=True
    )
    named = ", ".join(f"{name} {ratio:.1f}" for ratio, name in long)
    return [f"{len(long)} of {len(rows)} took {LONG} times a plain export or more{': ' + named if named else ''}.", ""]


def _trace_ratio(row: Row, of: str) -> float | None:
    """Return how many exports the tracing of a network took; None where one of both was not measured."""
    return row["trace_s"] / row[of] if row.get(of) and row.get("trace_s") else None


def _listed(names: Sequence[str], text: str) -> str:
    return f"{len(names)} {text}{': ' + ', '.join(names) if names else ''}"


def _ratio_summary(rows: Sequence[Row], of: str) -> str:
    ratios = [ratio for row in rows if (ratio := _trace_ratio(row, of)) is not None]
    return (
        f"{statistics.median(ratios):.1f} times (median; at most twice in {sum(ratio <= 2 for ratio in ratios)} of "
        f"{len(ratios)}; {max(ratios):.0f} times at worst)"
    )


def _network_table(rows: Sequence[Row], newest: str) -> list[str]:
    older = sorted({row["version"] for row in rows} - {newest}, key=_release)
    versions = _enumerated([_version_text(version) for version in older])
    note = f"Rows marked * are of version {versions}, the other rows of version {newest}.\n" if older else ""
    times = "| network | export | batched | trace "
    head = f"{times}| groups | can be cut | left | differs | loaded | exports | unchanged | raw | torch-pruning |"
    ruler = "|---|--:|--:|--:|--:|--:|--:|--:|---|---|---|---|---|"
    return ["## Every network", "", note, head, ruler, *(_network_line(row, newest) for row in rows)]


def _network_line(row: Row, newest: str) -> str:
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


def _frozen_lines(rows: Sequence[Row]) -> list[str]:
    lines = ["## Frozen units and failures", "", FROZEN, ""]
    for row in rows:
        if "failed" in row:
            lines.append(f"- **{row['name']}** failed at {row['failed']}: {_one_line(row['error'])}")
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
            text = f"{operator}: {_one_line(reason)}" if operator else _one_line(reason)
            names_by_reason.setdefault(text, []).append(name)
    return [
        f"  - {', '.join(f'`{name}`' for name in names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: "
        f"{reason}"
        for reason, names in names_by_reason.items()
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")
