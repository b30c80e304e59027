"""The report as text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateur.allocation.quantities import quantity_text
from secateur.coupling.plan import bias_lines
from secateur.evaluation.runtimes import EAGER
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from secateur.evaluation.records import Latency
    from secateur.report.report import Figures, LayerFigures, SparsityFigures

MOST_LAYERS = 8


def report_rows(report: "Figures") -> list[tuple[str, str, str, str]]:
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
    effective = report.settings.get("effective")
    if effective is not None and effective["step"] > 1:
        before, after = effective["dense"], effective["left"]
        label = f"MACs in steps of {effective['step']}"
        rows.append((label, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}"))
    ratio = dense.latency.median / pruned.latency.median
    label = f"ms for a batch of {dense.latency.batch}"
    rows.append((label, _spread(dense.latency), _spread(pruned.latency), f"{ratio:.2f}x the speed"))
    if report.sparsity is not None:
        ratio = dense.latency.median / report.sparsity.masked.median
        rows.append(("  with the zeros in place", "", _spread(report.sparsity.masked), f"{ratio:.2f}x the speed"))
        rows += [(f"{name}, times fewer", "", "", f"{times:.2f}") for name, times in report.sparsity.ratios.items()]
    return rows


def _fraction(label: str, dense: float | None, pruned: float | None) -> tuple[str, str, str, str]:
    before, after = dense or 0.0, pruned or 0.0
    return label, f"{before:.2%}", f"{after:.2%}", f"{(after - before) * 100:+.2f} points"


def _spread(latency: "Latency") -> str:
    return f"{latency.median:.2f} [{latency.lower:.2f}, {latency.upper:.2f}]"


def about(report: "Figures") -> list[str]:
    """Where the figures come from, in words."""
    asked = ", ".join(quantity_text(unit, value) for unit, value in report.keep.items())
    verb = "scored" if report.sparsity is None else "trained"
    examples = f"examples that were not {verb} on" if report.held_out else f"the same examples that were {verb} on"
    settings = report.settings
    made = f"{settings['note']}, seed {settings['seed']}"
    return [
        f"{report.title}, kept {asked}, by {settings['by']} ({made})"
        if report.sparsity is not None
        else f"{report.title}, kept {asked}, ranked by {settings['by']} ({made}), {_repaired(settings['repairs'])}",
        *_dropped(settings["drop"]),
        *([f"left out for want of time: {', '.join(settings['left_out'])}"] if settings.get("left_out") else []),
        f"measured on {report.examples:,} {examples}; latency: median and quartiles, {settings['threads']} threads"
        f"{_runtime(settings)}",
        *settings.get("notes", ()),
        *([settings["speed"]] if settings.get("speed") else []),
        *bias_lines(report.new_biases),
        *(report.sparsity.notes if report.sparsity is not None else ()),
    ]


def _runtime(settings: Mapping[str, Any]) -> str:
    """The runtime of the times, where it is another than torch itself."""
    runtime = settings.get("runtime", EAGER)
    return "" if runtime == EAGER else f", in {runtime}"


def _dropped(drop: Mapping[str, Any] | None) -> list[str]:
    """What was lost where a bound was set."""
    if drop is None:
        return []
    return [
        f"{drop['unit']} changes by {drop['mean']:+.4f} (95 % interval {drop['low']:+.4f} to {drop['high']:+.4f}) on "
        f"{drop['examples']} examples held out, where {drop['asked']:+g} was allowed"
    ]


def _repaired(steps: Sequence[Mapping[str, Any]]) -> str:
    """What each repair gave."""
    if not steps:
        return "not repaired"
    given = [
        f"repaired by {step['name']} (divergence {step['before']:.4f} -> {step['after']:.4f} held out, "
        f"{step['seen']:.4f} on what it saw)"
        if step["kept"]
        else f"{step['name']} did not bring it nearer and was left out"
        for step in steps
    ]
    return ", ".join(given)


def time_rows(report: "Figures") -> list[tuple[str, str, str, str]]:
    """Where the time goes: the modules that take most of the dense network's, and all others together."""
    layers = report.settings.get("layers") or []
    ranked = sorted((layer for layer in layers if layer["name"]), key=lambda layer: -float(layer["dense"]))
    shown, others = ranked[:MOST_LAYERS], ranked[MOST_LAYERS:]
    outside = [layer for layer in layers if not layer["name"]]
    parts = [(layer["name"], [layer]) for layer in shown]
    parts += [(f"{len(others)} other modules", others)] if others else []
    parts += [("outside of modules", outside)] if outside else []
    rows = []
    for name, some in parts:
        dense, pruned = (sum(float(layer[side]) for layer in some) for side in ("dense", "pruned"))
        rows.append((name, f"{dense:.3f}", f"{pruned:.3f}", f"{pruned / max(dense, 1e-9):.0%}"))
    return rows


def report_text(report: "Figures") -> str:
    """The report for a terminal."""
    lines = align_columns([("", "dense", "pruned", ""), *report_rows(report)])
    units = [("group", "units", "kept", "")]
    units += [(name, str(size), str(left), f"{left / size:.0%}") for name, (size, left) in report.groups.items()]
    times = time_rows(report)
    tables = [align_columns([("where the time goes, ms", "dense", "pruned", ""), *times])] if times else []
    tables += [align_columns(units)] if report.groups else []
    tables += [align_columns([LAYER_HEAD, *layer_rows(report.sparsity)])] if report.sparsity is not None else []
    return "\n".join([*about(report), "", *lines, *(line for table in tables for line in ("", *table))])


LAYER_HEAD = ("layer", "weights", "not zero", "what is left", "kernel", "ms dense", "ms kernel")


def layer_rows(sparsity: "SparsityFigures") -> list[tuple[str, ...]]:
    """The cells of each layer that was made sparse, under `LAYER_HEAD`."""
    return [(name, *_layer_cells(layer)) for name, layer in sparsity.layers.items()]


def _layer_cells(layer: "LayerFigures") -> tuple[str, ...]:
    times = ["" if time is None else f"{time:.3f}" for time in (layer.dense_ms, layer.kernel_ms)]
    share = f"{layer.remaining:,} ({layer.remaining / max(layer.weights, 1):.1%})"
    return f"{layer.weights:,}", share, layer.structure, layer.kernel, *times
