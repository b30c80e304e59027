"""The text form of a report."""

import math
from collections.abc import Mapping
from typing import Any

from secateur.allocation.quantities import budget_text
from secateur.coupling.plan import bias_lines
from secateur.evaluation.records import Latency
from secateur.evaluation.runtimes import EAGER
from secateur.report.figures import Figures, LayerFigures, SparsityFigures
from secateur.report.generation_times import generation_label
from secateur.report.repairs_text import repairs_text
from secateur.utils.plurals import number_of
from secateur.utils.text_table import align_columns

MAX_LAYERS = 8
Row = tuple[str, str, str, str]


def report_rows(report: Figures) -> list[Row]:
    """Return a row for each metric: its name, the dense value, the pruned value and the change."""
    return [*_quality_rows(report), *_cost_rows(report), *_latency_rows(report)]


def _quality_rows(report: Figures) -> list[Row]:
    dense, pruned = report.dense, report.pruned
    fractions = [
        ("accuracy", "accuracy", dense.accuracy, pruned.accuracy),
        ("agreement", "agreement with dense", dense.agreement, pruned.agreement),
    ]
    rows = [_fraction(report, *values) for values in fractions if values[2] is not None]
    if dense.metric is not None and pruned.metric is not None:
        label = report.settings.get("metric") or "metric"
        rows.append(_number_row(report, "metric", label, dense.metric, pruned.metric))
    if dense.perplexity is not None and pruned.perplexity is not None:
        rows.append(_perplexity_row(dense.perplexity, pruned.perplexity))
    rows.append(_number_row(report, "loss", "loss", dense.loss, pruned.loss))
    divergence = f"{pruned.divergence:.4f}{_half_width(report, 'divergence')}"
    rows.append(("divergence from dense", f"{dense.divergence:.4f}", divergence, ""))
    return rows if report.held_out else [(f"{row[0]}, in-sample", *row[1:]) for row in rows]


def _cost_rows(report: Figures) -> list[tuple[str, str, str, str]]:
    counts = [
        (label, getattr(report.dense.cost, name), getattr(report.pruned.cost, name))
        for name, label in (("params", "parameters"), ("macs", "MACs"), ("bytes", "bytes"))
    ]
    effective = report.settings.get("effective")
    if effective is not None and effective["step"] > 1:
        counts.append((f"MACs in steps of {effective['step']}", effective["dense"], effective["kept"]))
    return [(label, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}") for label, before, after in counts]


def _latency_rows(report: Figures) -> list[tuple[str, str, str, str]]:
    dense, pruned, sparsity = report.dense.latency, report.pruned.latency, report.sparsity
    rows = [(f"ms for a batch of {dense.batch}", _latency_text(dense), _latency_text(pruned), _speedup(dense, pruned))]
    tokens = report.settings.get("tokens")
    if tokens:
        before, after = (f"{1000 * tokens / latency.median:,.0f}" for latency in (dense, pruned))
        rows.append((f"tokens per second, batch of {dense.batch}", before, after, ""))
    generation = report.settings.get("generation")
    if generation is not None:
        first, second = (Latency(**generation[side]) for side in ("dense", "pruned"))
        rows.append(
            (generation_label(generation), _latency_text(first), _latency_text(second), _speedup(first, second))
        )
    if sparsity is not None:
        rows.append(("  with the zeros in place", "", _latency_text(sparsity.masked), _speedup(dense, sparsity.masked)))
        rows += [(f"{name}, times fewer", "", "", f"{ratio:.2f}") for name, ratio in sparsity.ratios.items()]
    return rows


def _speedup(dense: Latency, other: Latency) -> str:
    return f"{dense.median / other.median:.2f}x the speed"


def _fraction(report: Figures, name: str, label: str, dense: float | None, pruned: float | None) -> Row:
    before, after = dense or 0.0, pruned or 0.0
    change = f"{(after - before) * 100:+z.2f}{_half_width(report, name, 100)} points"
    return label, f"{before:.2%}", f"{after:.2%}", change


def _number_row(report: Figures, name: str, label: str, dense: float, pruned: float) -> Row:
    return label, f"{dense:.4f}", f"{pruned:.4f}", f"{pruned - dense:+z.4f}{_half_width(report, name)}"


def _perplexity_row(dense: float, pruned: float) -> Row:
    return "perplexity", f"{dense:,.2f}", f"{pruned:,.2f}", f"{pruned / dense:.3f} times"


def _half_width(report: Figures, name: str, factor: float = 1) -> str:
    """Format half the width of the interval of a change; "" where there is none."""
    change = report.changes.get(name)
    if change is None or not report.held_out or not math.isfinite(change.half_width):
        return ""
    return f" ± {factor * change.half_width:.{2 if factor > 1 else 4}f}"


def _latency_text(latency: Latency) -> str:
    return f"{latency.median:.2f} [{latency.lower:.2f}, {latency.upper:.2f}]"


def introduction(report: Figures) -> list[str]:
    """Return the lines above the tables: the budget, the method, the repairs, the examples, notes, and warnings."""
    return [_method_line(report), *facts_lines(report), *warning_texts(report)]


def warning_texts(report: Figures) -> list[str]:
    """Return a line for each warning of the run."""
    return [f"warning: {text}" for text in report.settings.get("warnings", ())]


def facts_lines(report: Figures) -> list[str]:
    """Return lines on bounds, on the examples of the measurements, and the notes."""
    settings = report.settings
    verb = "fitted to" if report.sparsity is None else "trained on"
    examples = f"examples that were not {verb}, with 95 % intervals"
    if not report.held_out:
        examples = f"examples, the same that were {verb} (in-sample); test= measures on others"
    return [
        *_bound_lines(settings["drop"]),
        *([f"left out for want of time: {', '.join(settings['left_out'])}"] if settings.get("left_out") else []),
        f"measured on {report.examples:,} {examples}; latency: median and quartiles, "
        f"{number_of(settings['threads'], 'thread')}{_runtime(settings)}",
        *([f"MACs are those of {settings['inputs']}"] if settings.get("inputs") else []),
        *settings.get("notes", ()),
        *([settings["speed"]] if settings.get("speed") else []),
        *bias_lines(report.new_biases),
        *(report.sparsity.notes if report.sparsity is not None else ()),
    ]


def _method_line(report: Figures) -> str:
    settings = report.settings
    budget = budget_text(report.keep)
    method = f"{settings['by']} ({settings['note']}, seed {settings['seed']})"
    if report.sparsity is not None:
        return f"{report.title}, kept {budget}, by {method}"
    return f"{report.title}, kept {budget}, ranked by {method}, {repairs_text(settings['repairs'])}"


def _runtime(settings: Mapping[str, Any]) -> str:
    """Name the runtime of the latencies if it is not torch."""
    runtime = settings.get("runtime", EAGER)
    return "" if runtime == EAGER else f", in {runtime}"


def _bound_lines(drop: Mapping[str, Any] | None) -> list[str]:
    """Describe the change of the bounded metric."""
    if drop is None:
        return []
    return [
        f"{drop['unit']} changes by {drop['mean']:+z.4f} (95 % interval {drop['low']:+z.4f} to {drop['high']:+z.4f}) "
        f"on {drop['examples']} examples held out, where {drop['asked']:+g} was allowed"
    ]


def time_rows(report: Figures) -> list[tuple[str, str, str, str]]:
    """Return a row of milliseconds for each of the slowest modules, and one for all others together."""
    layers = report.settings.get("layers") or []
    sorted_layers = sorted((layer for layer in layers if layer["name"]), key=lambda layer: -float(layer["dense"]))
    shown_layers, other_layers = sorted_layers[:MAX_LAYERS], sorted_layers[MAX_LAYERS:]
    outside = [layer for layer in layers if not layer["name"]]
    entries = [(layer["name"], [layer]) for layer in shown_layers]
    entries += [(f"{len(other_layers)} other modules", other_layers)] if other_layers else []
    entries += [("outside of modules", outside)] if outside else []
    rows = []
    for name, times in entries:
        dense, pruned = (sum(float(layer[side]) for layer in times) for side in ("dense", "pruned"))
        rows.append((name, f"{dense:.3f}", f"{pruned:.3f}", f"{pruned / max(dense, 1e-9):.0%}"))
    return rows


def report_text(report: Figures) -> str:
    """Format the report for a terminal."""
    lines = align_columns([("", "dense", "pruned", ""), *report_rows(report)])
    units = [("group", "units", "kept", "")]
    units += [(name, str(size), str(kept), f"{kept / size:.0%}") for name, (size, kept) in report.groups.items()]
    times = time_rows(report)
    tables = [align_columns([("where the time goes, ms", "dense", "pruned", ""), *times])] if times else []
    tables += [align_columns(units)] if report.groups else []
    tables += [align_columns([LAYER_COLUMNS, *layer_rows(report.sparsity)])] if report.sparsity is not None else []
    return "\n".join([*introduction(report), "", *lines, *(line for table in tables for line in ("", *table))])


LAYER_COLUMNS = ("layer", "weights", "not zero", "what is left", "kernel", "ms dense", "ms kernel")


def layer_rows(sparsity: SparsityFigures) -> list[tuple[str, ...]]:
    """Return the cells of each sparse layer, in the order of `LAYER_COLUMNS`."""
    return [(name, *_layer_cells(layer)) for name, layer in sparsity.layers.items()]


def _layer_cells(layer: LayerFigures) -> tuple[str, ...]:
    times = ["" if time is None else f"{time:.3f}" for time in (layer.dense_ms, layer.kernel_ms)]
    share = f"{layer.remaining:,} ({layer.remaining / max(layer.weights, 1):.1%})"
    return f"{layer.weights:,}", share, layer.structure, layer.kernel, *times
