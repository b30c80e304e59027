"""The smallest network within a bound on what is lost: plans of several sizes are tried on examples held out."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.allocation.candidates import Allocation
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.plan import Plan
from secateur.errors import BudgetError
from secateur.evaluation.losses import Loss, Reference, example_losses, is_logits, main_output

STEPS = 7
LEAST = 0.02
NORMAL = 1.96
IGNORED = -100


@dataclass(frozen=True)
class MetricChange:
    """What a cut network loses on the examples held out.

    Args:
        unit: "loss" or "accuracy".
        asked: the most it may change by.
        mean: by how much it does, with `low` and `high` the ends of its 95 % interval, by the normal approximation.
        examples: how many were held out.
    """

    unit: str
    asked: float
    mean: float
    low: float
    high: float
    examples: int

    @property
    def within(self) -> bool:
        return self.mean <= self.asked if self.unit == "loss" else self.mean >= self.asked


def smallest_plan_within(
    allocator: PlanSearch, unit: str, asked: float, loss: Loss | None
) -> tuple[Plan, MetricChange]:
    """The smallest plan, in MACs, whose drop on the examples held out is within a bound.

    Raises:
        BudgetError: even the largest plan tried drops more.
    """
    _, way = allocator.best({"macs": _reachable(allocator, 0.5, Allocation(("uniform",)))})
    low, high = _reachable(allocator, LEAST, way), 1.0
    found: tuple[Plan, MetricChange] | None = None
    drop = None
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        tried = allocator.plan({"macs": middle}, way)
        drop = measure_change(allocator.rehearsal, tried, unit, asked, loss)
        if drop.within:
            found, high = (tried, drop), middle
        else:
            low = middle
    if found is None:
        assert drop is not None
        raise BudgetError(
            f"keep={{{unit!r}: {asked:g}}} can't be met: with {low:.0%} of the MACs it changes by {drop.mean:+.4f} on "
            f"{drop.examples} examples; allow more, or give more examples"
        )
    return found


def _reachable(allocator: PlanSearch, macs: float, way: Allocation) -> float:
    """This fraction of the MACs, or the least that can be reached in this way."""
    low, high = macs, 1.0
    for _ in range(12):
        try:
            allocator.plan({"macs": low}, way)
            return low
        except BudgetError:
            low = low + (high - low) / 4
    return high


def measure_change(rehearsal: PlanSimulator, tried: Plan, unit: str, asked: float, loss: Loss | None) -> MetricChange:
    """By how much the loss or the accuracy changes on the examples held out."""
    changes = torch.cat(list(CHANGES[unit](rehearsal, tried, loss)))
    mean, spread = float(changes.mean()), float(changes.std()) if len(changes) > 1 else 0.0
    half = NORMAL * spread / len(changes) ** 0.5
    return MetricChange(unit, asked, mean, mean - half, mean + half, len(changes))


def _loss_changes(rehearsal: PlanSimulator, tried: Plan, loss: Loss | None) -> Iterator[Tensor]:
    """How much each example's loss grows: against the label, or the dense network's output."""
    for cell, dense, cut in rehearsal.outputs(tried.kept):
        reference, examples = Reference(cell.target, dense), cell.size or 1
        before, after = (example_losses(loss, output, reference, examples).double() for output in (dense, cut))
        yield (after - before).cpu()


def _accuracy_changes(rehearsal: PlanSimulator, tried: Plan, loss: Loss | None) -> Iterator[Tensor]:
    """How much oftener each example is right; without labels, as the dense network is."""
    for cell, dense, cut in rehearsal.outputs(tried.kept):
        tops = [_tops(output) for output in (dense, cut)]
        right = tops[0] if cell.target is None else cell.target
        if not isinstance(right, Tensor) or right.shape != tops[0].shape or right.is_floating_point():
            raise BudgetError("a bound on the accuracy needs outputs and labels that are classes; give {'loss': ...}")
        counted = (right != IGNORED).to(tops[0].device)
        hits = [((top == right.to(top.device)) & counted).double().view(len(top), -1).sum(1) for top in tops]
        yield ((hits[1] - hits[0]) / counted.view(len(counted), -1).sum(1).clamp_min(1)).cpu()


def _tops(output: Any) -> Tensor:
    """The top classes: along the last axis of what is named logits, else along the second."""
    scores = main_output(output)
    return scores.argmax(-1 if is_logits(output) else 1) if scores.dim() > 1 else scores


CHANGES: Mapping[str, Callable[[PlanSimulator, Plan, Loss | None], Iterator[Tensor]]] = {
    "loss": _loss_changes,
    "accuracy": _accuracy_changes,
}
