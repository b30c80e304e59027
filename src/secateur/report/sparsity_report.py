"""Measure a network that is sparse below the unit beside the dense one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from secateur.coupling.cost import Cost
from secateur.evaluation.evaluate import evaluate
from secateur.evaluation.report_split import ReportExamples
from secateur.evaluation.runtimes import repeatable_call
from secateur.evaluation.timing import interleaved_times, latency_of
from secateur.graph.contexts import isolated_evaluation
from secateur.report.figures import LayerFigures, SparsityFigures
from secateur.report.report import Report


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseFacts:
    """The facts about a sparse network that need no measurement.

    Args:
        title: the model's class.
        method: its name, such as "spp".
        note: its settings, in words.
        seed: the seed of its random numbers.
        keep: the budget.
        dense: the cost of the dense network.
        cost: the cost of the sparse network.
        groups: the numbers of units before and after, by group, where channels were cut.
        kinds: the kinds of the groups' units, by group.
        layers: the sparse layers, by the names of their weights.
        ratios: ratios of compression, dense to sparse, by the name of the quantity.
        notes: further lines of the report.
        inputs: the inputs that MACs are counted for, in words.
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
    inputs: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)


def measure_sparsity(
    dense: nn.Module, masked: nn.Module, fast: nn.Module, facts: SparseFacts, examples: ReportExamples
) -> Report:
    """Run the dense network and the sparse one on the same examples, and time them in turn.

    Args:
        dense: the dense network.
        masked: the sparse network, of the same class, with zeros in its weights.
        fast: the sparse network with kernels that skip zeros.
        facts: the facts about the sparse network that need no measurement.
        examples: the examples to measure on, and the batch to time.
    """
    batch = examples.timed
    before, after = evaluate(dense, masked, examples.measured)
    with isolated_evaluation(dense), isolated_evaluation(masked), isolated_evaluation(fast):
        times = interleaved_times([repeatable_call(model, batch) for model in (dense, masked, fast)])
    size = batch.size or 1
    latencies = [latency_of(size, spent) for spent in times]
    settings = {"by": facts.method, "note": facts.note, "seed": facts.seed, "threads": torch.get_num_threads()}
    settings["inputs"] = facts.inputs
    return Report(
        title=facts.title,
        examples=len(before.losses),
        held_out=examples.held_out,
        dense=before.metrics(facts.dense, latencies[0]),
        pruned=after.metrics(facts.cost, latencies[2]),
        groups=dict(facts.groups),
        kinds=dict(facts.kinds),
        keep=dict(facts.keep),
        settings=settings | {"drop": None, "repairs": [], "left_out": [], "notes": list(examples.notes)},
        sparsity=SparsityFigures(dict(facts.layers), latencies[1], dict(facts.ratios), facts.notes),
        changes=after.changes_from(before),
    )
