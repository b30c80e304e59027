"""The section of docs/coverage.md that compares rows with those of an earlier version."""

from collections.abc import Mapping

from wild.ours import Row


def changes_section(now: Mapping[str, Row], before: Mapping[str, Row]) -> list[str]:
    """Return the lines of a section with the networks that both versions measured; none where there are none."""
    pairs = [(before[name], row) for name, row in now.items() if name in before]
    pairs = [(old, new) for old, new in pairs if old["version"] != new["version"]]
    if not pairs:
        return []
    version = pairs[0][0]["version"]
    return [
        f"## Changes since version {version}",
        "",
        "Both versions were run on one machine. *can be cut* is the share as above. *frozen units* is the number of",
        "channels, heads and features that cannot be removed, without those of the outputs. *trace / export* is the",
        "time of `sc.trace` divided by that of the batched export. *trial cuts* is the number of trial cuts during",
        "tracing. *now* is the row of the table of every network, which also gives its version. Where a network could",
        "not be traced, the kind of error is given; *none* is a network without a group. The machine was busy with",
        f"other work, so that ratios of small networks vary by a half from run to run. Some times of {version} are",
        "elapsed times.",
        "",
        f"| network | can be cut, {version} | now | frozen units | now | trace / export | now | trial cuts | now |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_compared_line(old, new) for old, new in pairs),
        "",
    ]


def _compared_line(old: Row, new: Row) -> str:
    cells = [
        cell for column in (_share_cell, _frozen_cell, _ratio_cell, _trials_cell) for cell in (column(old), column(new))
    ]
    return f"| {new['name']} | " + " | ".join(cells) + " |"


def _share_cell(row: Row) -> str:
    if "share" in row and row.get("failed") != "cut":
        return f"{row['share']:.1%}"
    if row.get("failed") in ("time", "process"):
        return "hang" if row["failed"] == "time" else "crash"
    if row.get("raw"):
        return "raw " + row["error"].split(":")[0]
    return "none" if "share" in row else row["error"].split(":")[0]


def _frozen_cell(row: Row) -> str:
    return str(row["frozen_units"]) if "frozen_units" in row else ""


def _ratio_cell(row: Row) -> str:
    return f"{row['trace_s'] / row['batched_s']:.1f}" if row.get("batched_s") and "trace_s" in row else ""


def _trials_cell(row: Row) -> str:
    return str(row.get("trials", ""))
