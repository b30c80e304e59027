"""The figures of a report, as records without any form of output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.evaluation.changes import Change
from secateur.evaluation.records import Latency, Metrics
from secateur.options.call_checks import checked_calls


@dataclass(frozen=True)
class LayerFigures:
    """One layer whose weight was made sparse.

    Args:
        weights: the number of entries of its weight in the dense network.
        remaining: the number of entries that are not zero.
        structure: the structure of the remaining entries, such as "27 of 72 columns".
        kernel: the kernel that computes the layer in the fast network: "dense", or a kernel for the structure.
        dense_ms: the least milliseconds of the dense kernel on the layer's input, None where there is no other kernel.
        kernel_ms: the same of the kernel for the structure.
    """

    weights: int
    remaining: int
    structure: str
    kernel: str = "dense"
    dense_ms: float | None = None
    kernel_ms: float | None = None


@dataclass(frozen=True, eq=False)
class SparsityFigures:
    """The weights that remain in a network that was made sparse below the unit.

    Args:
        layers: the layers, by the names of their weights.
        masked: the latency of the saved network, which computes with its zeros. The latency of the fast network, which
            skips zeros where that is faster, is that of `Figures.pruned`.
        ratios: ratios of compression, dense to sparse, by the name of the quantity.
        notes: further lines.
    """

    layers: Mapping[str, LayerFigures]
    masked: Latency
    ratios: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True)
class Figures:
    """The dense and the pruned network in numbers.

    Args:
        title: the model's class.
        examples: the number of examples that both networks were measured on.
        held_out: True where these are not the examples of scoring, planning, repair or training; otherwise the measures
            are in-sample.
        dense: the metrics of the dense network.
        pruned: the metrics of the pruned network.
        groups: the numbers of units before and after, by group.
        kinds: the kind of each group's units, by group; reports of earlier versions have none.
        keep: the budget.
        settings: the criterion, its note, the seed, the outcome of each repair, the steps that were left out for lack
            of time, the warnings, and the number of threads.
        new_biases: the biases that were added to layers without one, for the means of removed units.
        sparsity: the sparse weights of a method below the unit; None for `prune`.
        changes: the changes of the measures with their 95 % intervals over the examples, by name; for "divergence" the
            divergence itself.
    """

    title: str
    examples: int
    held_out: bool
    dense: Metrics
    pruned: Metrics
    groups: dict[str, tuple[int, int]]
    keep: dict[str, float]
    settings: dict[str, Any]
    new_biases: tuple[str, ...] = ()
    sparsity: SparsityFigures | None = None
    changes: Mapping[str, Change] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


def measure_rows(report: Figures) -> list[dict[str, Any]]:
    """Return a row of plain numbers for each measure that both networks have: its name, its values, and the interval.

    Args:
        report: the figures.
    """
    rows: list[dict[str, Any]] = []
    for name in ("accuracy", "agreement", "metric", "perplexity", "loss", "divergence"):
        change = report.changes.get(name)
        width = None if change is None or not report.held_out else change.half_width
        rows.append(_measure_row(name, getattr(report.dense, name), getattr(report.pruned, name), width))
    for name in ("params", "macs", "bytes"):
        rows.append(_measure_row(name, getattr(report.dense.cost, name), getattr(report.pruned.cost, name), None))
    rows.append(_measure_row("ms", report.dense.latency.median, report.pruned.latency.median, None))
    return [row for row in rows if row["pruned"] is not None]


def _measure_row(name: str, dense: float | None, pruned: float | None, half_width: float | None) -> dict[str, Any]:
    return {"measure": name, "dense": dense, "pruned": pruned, "half width of the change": half_width}
