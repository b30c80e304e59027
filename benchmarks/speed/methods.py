"""Methods that make a network smaller: Secateur by default, with channels or blocks alone, for onnxruntime, a peer."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import secateur as sc
from secateur.coupling.kinds import USUAL
from secateur.data.batch import Batch
from secateur.evaluation.timing import Stopwatch
from speed.subjects import TimedSubject

STEP, BATCH = 16, 32


@dataclass(frozen=True)
class SmallNetwork:
    """A smaller network.

    Args:
        model: the network.
        macs: its fraction of the dense network's MACs.
        effective: its fraction of the effective MACs, whose channels are rounded up to the step; None if unknown.
        notes: the notes of the plan, and the numbers of units that are kept.
    """

    model: nn.Module
    macs: float
    effective: float | None
    notes: tuple[str, ...] = ()


def prune_by_secateur(subject: TimedSubject, keep: Mapping[str, float], **options: Any) -> SmallNetwork:
    """Prune by Secateur with all examples; the accuracy is measured on others."""
    result = sc.prune(subject.model, subject.calibration, keep, holdout=0, progress=False, **options)
    plan = result.plan
    effective = plan.effective.kept / plan.effective.dense if plan.effective else None
    counts = ", ".join(f"{name} {len(kept)}" for name, kept in plan.kept.items())
    return SmallNetwork(result.model, plan.cost.macs / plan.dense.macs, effective, (*plan.notes, counts))


def prune_by_peer(subject: TimedSubject, keep: Mapping[str, float]) -> SmallNetwork:
    """Prune by torch-pruning: the same share of every layer by the L2 norm of its groups, in multiples of 16.

    The share is found by bisection in seven steps. The statistics of batch norm are estimated again.

    Raises:
        ValueError: no share meets the budget.
    """
    import torch_pruning as tp  # noqa: PLC0415 (the other methods do without it)
    from lowdata.peers import batchnorm_anew  # noqa: PLC0415 (needs it, too)

    images = torch.cat(subject.calibration)
    stopwatch = Stopwatch(subject.model, Batch((images[:BATCH],), {}))
    dense = tp.utils.count_ops_and_params(subject.model, images[:1])[0]
    low, high = 0.0, 0.98
    best: SmallNetwork | None = None
    for _ in range(7):
        share, model = (low + high) / 2, copy.deepcopy(subject.model)
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
        tp.pruner.BasePruner(
            model, images[:1], tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=share, ignored_layers=last,
            round_to=STEP,
        ).step()  # fmt: skip
        macs = tp.utils.count_ops_and_params(model, images[:1])[0] / dense
        cost = macs if "macs" in keep else stopwatch.time_ratio(model)
        if cost <= next(iter(keep.values())):
            best, high = SmallNetwork(model, macs, None), share
        else:
            low = share
    if best is None:
        raise ValueError("no share that multiples of 16 allow meets the budget")
    batchnorm_anew(best.model, images)
    return best


METHODS: Mapping[str, Callable[[TimedSubject, Mapping[str, float]], SmallNetwork]] = {
    "secateur": prune_by_secateur,
    "for onnxruntime": lambda subject, keep: prune_by_secateur(subject, keep, target="onnxruntime"),
    "channels alone": lambda subject, keep: prune_by_secateur(subject, keep, kinds=USUAL),
    "blocks alone": lambda subject, keep: prune_by_secateur(subject, keep, kinds="blocks", by="leave-one-out"),
    "any sizes": lambda subject, keep: prune_by_secateur(subject, keep, target="any"),
    "torch-pruning, round_to=16": prune_by_peer,
}
BUDGETS: Mapping[str, Mapping[str, float]] = {"macs": {"macs": 0.5}, "latency": {"latency": 0.5}}
TRIED: Mapping[str, tuple[str, ...]] = {
    "macs": ("secateur", "blocks alone", "any sizes", "torch-pruning, round_to=16"),
    "latency": ("secateur", "for onnxruntime", "channels alone", "blocks alone", "torch-pruning, round_to=16"),
}
