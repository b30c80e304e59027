"""What pruning did, measured: the figures, and the forms in which they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.evaluation.records import Latency, Metrics
from secateur.files.records import encoded
from secateur.importance.scores import Scores
from secateur.report.html import report_page
from secateur.report.schema import saved_form
from secateur.report.text import report_text


@dataclass(frozen=True)
class LayerFigures:
    """One layer whose weight was made sparse.

    Args:
        weights: how many entries its weight had in the dense network.
        remaining: how many are not zero.
        structure: what they lie in, such as "27 of 72 columns".
        kernel: what computes the layer in the fast network: "dense", or the name of a kernel for that structure.
        dense_ms, kernel_ms: least milliseconds of both on the layer's input, None where there is no such kernel.
    """

    weights: int
    remaining: int
    structure: str
    kernel: str = "dense"
    dense_ms: float | None = None
    kernel_ms: float | None = None


@dataclass(frozen=True, eq=False)
class SparsityFigures:
    """What a method left that prunes below the unit.

    Args:
        layers: by the names of their weights.
        masked: the time of the network that is saved, which computes with its zeros; the report's `pruned` has the time
            of the fast network, which computes what is left where that is faster.
        ratios: how many times fewer there are of something, by its name.
        notes: further lines.
    """

    layers: Mapping[str, LayerFigures]
    masked: Latency
    ratios: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Figures:
    """What pruning did, in numbers.

    Args:
        title: the model's class.
        examples: how many examples were measured on, and `held_out` whether they are others than those scored on.
        dense: the dense network, and `pruned` the pruned one.
        groups: units before and after, by group.
        keep: the budget that was asked for.
        settings: the criterion, its note, the seed, what each repair gave, what was left out for want of time, and the
            number of threads.
        new_biases: the biases that layers without one got for the means of removed units.
        sparsity: what a method left that prunes below the unit; None for `prune`.
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

    def __str__(self) -> str:
        return report_text(self)

    def to_json(self) -> str:
        """The report as JSON."""
        return encoded(saved_form(self)).decode()

    def to_html(self) -> str:
        """The report as one self-contained page with plots."""
        return report_page(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Figures):
    """What pruning did, measured.

    Args:
        scores: what the units were judged by.
    """

    scores: Scores

    def __str__(self) -> str:
        return report_text(self)
