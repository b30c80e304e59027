"""A network that was made sparse below the unit, measured beside the dense one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from secateur.coupling.cost import Cost
from secateur.data.batch import Batch
from secateur.evaluation.metrics import example_measures, optional_means
from secateur.evaluation.records import Metrics
from secateur.evaluation.runtimes import repeatable_call
from secateur.evaluation.timing import interleaved_times, latency_of
from secateur.graph.contexts import preserved
from secateur.report.report import Figures, LayerFigures, SparsityFigures


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseFacts:
    """What a method knows of its result without running it.

    Args:
        title: the model's class.
        method: its name, such as "spp".
        note: with what it was run, in words.
        seed: of all that was drawn.
        keep: the budget that was asked for.
        dense: the cost of the dense network, and `cost` of what is left.
        groups: units before and after, by group, where channels were cut.
        layers: by the names of their weights.
        ratios: how many times fewer there are of something.
        notes: further lines of the report.
    """

    title: str
    method: str
    note: str
    seed: int
    keep: Mapping[str, float]
    dense: Cost
    cost: Cost
    groups: Mapping[str, tuple[int, int]]
    layers: Mapping[str, LayerFigures]
    ratios: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def measure_sparsity(
    dense: nn.Module, masked: nn.Module, fast: nn.Module, facts: SparseFacts, batches: Sequence[Batch], held_out: bool
) -> Figures:
    """Run the dense network and the sparse one on the same examples, and time them in turn.

    Args:
        dense: the network as it was.
        masked: the sparse one, of the dense one's class, with zeros in its weights.
        fast: the same, with kernels for what is left.
        facts: what is known of it.
        batches: the examples.
        held_out: whether they are others than those that it was trained on.
    """
    with preserved(dense), preserved(masked), preserved(fast):
        measures = torch.cat([example_measures(dense, masked, batch, None) for batch in batches], 2)
        times = interleaved_times([repeatable_call(model, batches[0]) for model in (dense, masked, fast)])
    size = batches[0].size or 1
    latencies = [latency_of(size, spent) for spent in times]
    before, after = measures.nanmean(2).tolist()
    settings = {"by": facts.method, "note": facts.note, "seed": facts.seed, "threads": torch.get_num_threads()}
    return Figures(
        title=facts.title,
        examples=measures.shape[2],
        held_out=held_out,
        dense=Metrics(*optional_means(before), facts.dense, latencies[0]),
        pruned=Metrics(*optional_means(after), facts.cost, latencies[2]),
        groups=dict(facts.groups),
        keep=dict(facts.keep),
        settings=settings | {"drop": None, "repairs": [], "left_out": []},
        sparsity=SparsityFigures(dict(facts.layers), latencies[1], dict(facts.ratios), facts.notes),
    )
