"""The smallest network within a bound on the quality: plans of several sizes are tried on examples held out."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from secateur.allocation.block_search import best_plan
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.plan import MetricChange, Plan
from secateur.errors import BudgetError
from secateur.evaluation.losses import Loss, Reference, example_losses, is_logits, main_output

STEPS = 7
LEAST = 0.02
NORMAL = 1.96
IGNORED = -100


def smallest_plan_within(search: PlanSearch, unit: str, limit: float) -> Plan:
    """Return the smallest plan, in MACs, whose change on the examples held out is within a bound.

    Args:
        search: makes the plans.
        unit: "loss" or "accuracy".
        limit: the most it may change by.

    Raises:
        BudgetError: even the largest plan tried changes it by more.
    """
    allocation = best_plan(search, {"macs": _reachable(search, 0.5, Allocation(("uniform",)))}).allocation
    low, high = _reachable(search, LEAST, allocation), 1.0
    smallest: Plan | None = None
    change = None
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        plan = search.plan({"macs": middle}, allocation)
        change = measure_change(search.simulator, plan, unit, limit, search.config.loss)
        if change.within:
            smallest, high = replace(plan, change=change), middle
        else:
            low = middle
    if smallest is None:
        assert change is not None
        raise BudgetError(
            f"keep={{{unit!r}: {limit:g}}} can't be met: with {low:.0%} of the MACs it changes by {change.mean:+.4f} "
            f"on {change.examples} examples; allow more, or give more examples"
        )
    return smallest


def _reachable(search: PlanSearch, macs: float, allocation: Allocation) -> float:
    """Return this fraction of the MACs, or the least that can be reached by an allocation."""
    low, high = macs, 1.0
    for _ in range(12):
        try:
            search.plan({"macs": low}, allocation)
            return low
        except BudgetError:
            low = low + (high - low) / 4
    return high


def measure_change(
    simulator: PlanSimulator, plan: Plan, unit: str, limit: float, loss: Loss | None = None
) -> MetricChange:
    """Measure the change of the loss or the accuracy on the examples held out.

    Args:
        simulator: runs the plan.
        plan: the plan.
        unit: "loss" or "accuracy".
        limit: the most it may change by.
        loss: the user's own loss; the default one if None.
    """
    changes = torch.cat(list(CHANGES[unit](simulator, plan, loss)))
    mean, spread = float(changes.mean()), float(changes.std()) if len(changes) > 1 else 0.0
    half = NORMAL * spread / len(changes) ** 0.5
    return MetricChange(unit, limit, mean, mean - half, mean + half, len(changes))


def _loss_changes(simulator: PlanSimulator, plan: Plan, loss: Loss | None) -> Iterator[Tensor]:
    """Yield the increase of each example's loss, against the label or the dense network's output. (examples,)"""
    for batch, dense, cut in simulator.outputs(plan.kept):
        reference, examples = Reference(batch.target, dense), batch.size or 1
        before, after = (example_losses(loss, output, reference, examples).double() for output in (dense, cut))
        yield (after - before).cpu()


def _accuracy_changes(simulator: PlanSimulator, plan: Plan, loss: Loss | None) -> Iterator[Tensor]:
    """Yield the increase of each example's accuracy; without labels, of the agreement. (examples,)"""
    for batch, dense, cut in simulator.outputs(plan.kept):
        classes = [_top_classes(output) for output in (dense, cut)]
        labels = classes[0] if batch.target is None else batch.target
        if not isinstance(labels, Tensor) or labels.shape != classes[0].shape or labels.is_floating_point():
            raise BudgetError("a bound on the accuracy needs outputs and labels that are classes; give {'loss': ...}")
        counted = (labels != IGNORED).to(classes[0].device)
        hits = [((top == labels.to(top.device)) & counted).double().view(len(top), -1).sum(1) for top in classes]
        yield ((hits[1] - hits[0]) / counted.view(len(counted), -1).sum(1).clamp_min(1)).cpu()


def _top_classes(output: Any) -> Tensor:
    """Return the top classes: along the last axis of logits by name, else along the second."""
    scores = main_output(output)
    return scores.argmax(-1 if is_logits(output) else 1) if scores.dim() > 1 else scores


CHANGES: Mapping[str, Callable[[PlanSimulator, Plan, Loss | None], Iterator[Tensor]]] = {
    "loss": _loss_changes,
    "accuracy": _accuracy_changes,
}
