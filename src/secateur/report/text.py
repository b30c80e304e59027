"""The report as text and as JSON."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from secateur.report.saved import FORMAT
from secateur.tables import columns
from secateur.version import __version__

if TYPE_CHECKING:
    from secateur.report.results import Latency, Measured, Report


def report_rows(report: "Report") -> list[tuple[str, str, str, str]]:
    """Name, dense, pruned and change of everything that was measured."""
    dense, pruned = report.dense, report.pruned
    rows = [_fraction("accuracy", dense.accuracy, pruned.accuracy)] if dense.accuracy is not None else []
    rows += (
        [_fraction("agreement with dense", dense.agreement, pruned.agreement)] if dense.agreement is not None else []
    )
    rows.append(("loss", f"{dense.loss:.4f}", f"{pruned.loss:.4f}", f"{pruned.loss - dense.loss:+.4f}"))
    rows.append(("divergence from dense", f"{dense.divergence:.4f}", f"{pruned.divergence:.4f}", ""))
    for name, label in (("params", "parameters"), ("macs", "MACs"), ("bytes", "bytes")):
        before, after = getattr(dense.cost, name), getattr(pruned.cost, name)
        rows.append((label, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}"))
    ratio = dense.latency.median / pruned.latency.median
    label = f"ms for a batch of {dense.latency.batch}"
    rows.append((label, _spread(dense.latency), _spread(pruned.latency), f"{ratio:.2f}x the speed"))
    return rows


def _fraction(label: str, dense: float | None, pruned: float | None) -> tuple[str, str, str, str]:
    before, after = dense or 0.0, pruned or 0.0
    return label, f"{before:.2%}", f"{after:.2%}", f"{(after - before) * 100:+.2f} points"


def _spread(latency: "Latency") -> str:
    return f"{latency.median:.2f} [{latency.lower:.2f}, {latency.upper:.2f}]"


def about(report: "Report") -> list[str]:
    """Where the figures come from, in words."""
    asked = ", ".join(f"{unit} {value:g}" for unit, value in report.keep.items())
    examples = "examples that were not scored on" if report.held_out else "the same examples that were scored on"
    settings = report.settings
    tried = f"not repaired: {settings['repair']} did not bring it nearer" if settings["repair"] else "not repaired"
    repaired = f"repaired by {settings['repair']}" if settings["mended"] else tried
    return [
        f"{report.title}, kept {asked}, ranked by {settings['by']} ({settings['note']}, seed {settings['seed']}), "
        f"{repaired}",
        f"measured on {report.examples:,} {examples}; latency: median and quartiles, {settings['threads']} threads",
    ]


def report_text(report: "Report") -> str:
    """The report for a terminal."""
    lines = columns([("", "dense", "pruned", ""), *report_rows(report)])
    units = [("group", "units", "kept", "")]
    units += [(name, str(size), str(left), f"{left / size:.0%}") for name, (size, left) in report.groups.items()]
    return "\n".join([*about(report), "", *lines, "", *columns(units)])


def report_json(report: "Report") -> str:
    """The report for programs; see `Report` and `Measured` for what the fields mean."""

    def measured(network: "Measured") -> dict[str, object]:
        return asdict(network)

    return json.dumps(
        {
            "format": FORMAT,
            "secateur": __version__,
            "title": report.title,
            "examples": report.examples,
            "held_out": report.held_out,
            "keep": report.keep,
            "settings": report.settings,
            "dense": measured(report.dense),
            "pruned": measured(report.pruned),
            "groups": {name: {"units": size, "kept": left} for name, (size, left) in report.groups.items()},
        },
        indent=1,
    )
