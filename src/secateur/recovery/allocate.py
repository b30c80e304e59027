"""How many units go, and from where: several allocations are rehearsed, the one nearest to the dense network wins."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from secateur.budget.curves import Curves
from secateur.budget.keep import Keep
from secateur.budget.latency import LatencyTable
from secateur.budget.orders import LOSSES
from secateur.budget.plan import Plan, plan
from secateur.errors import BudgetError
from secateur.importance.losses import Loss, Reference, example_losses, is_logits, main_output
from secateur.importance.scores import Scores
from secateur.recovery.curves import measured_curves
from secateur.recovery.rehearsal import Rehearsal
from secateur.time_budget import TimeBudget

Way = tuple[tuple[str, ...], Curves | None]
FEWEST = 8
FEWEST_MEASURED = 64
CURVES, REHEARSALS = 0.35, 0.5  # shares of a time budget
MEASURED = 128
REHEARSED = 192
MOST_WORK = 2e12
STEPS = 7
LEAST = 0.02
NORMAL = 1.96
IGNORED = -100


@dataclass(frozen=True, eq=False)
class Allocator:
    """What plans are made from, but for the budget.

    Args:
        rehearsal: to try plans on.
        scores: what the units are worth.
        latency: this machine's times, for budgets in latency.
        round_to, floor: as `plan` takes them.
        ways: the allocations to try, with the curves that they go by.
        time: in which they are tried.
    """

    rehearsal: Rehearsal
    scores: Scores
    latency: LatencyTable | None
    round_to: int
    floor: float
    ways: Sequence[Way]
    time: TimeBudget = field(default_factory=TimeBudget)

    def plan(self, keep: Keep, way: Way) -> Plan:
        return plan(
            self.rehearsal.network,
            self.scores,
            keep,
            allocation=way[0],
            curves=way[1],
            latency=self.latency,
            round_to=self.round_to,
            floor=self.floor,
        )

    def best(self, keep: Keep) -> tuple[Plan, Way]:
        """The plan that comes nearest to the dense network on the examples held out, and its way."""
        plans = [(self.plan(keep, way), way) for way in self.ways]
        if len(plans) == 1:
            return plans[0]
        rehearsal, judged, start, longest = self.rehearsal.quick(REHEARSED), list[float](), self.time.elapsed, 0.0
        for candidate, _ in plans:
            if self.time.is_spent(REHEARSALS, ahead=longest):
                self.time.leave_out(f"{len(plans) - len(judged)} of {len(plans)} rehearsals of allocations")
                break
            judged.append(rehearsal.divergence(candidate.kept))
            start, longest = self.time.elapsed, max(longest, self.time.elapsed - start)
        return plans[min(range(len(judged)), key=judged.__getitem__, default=0)]


def ways_of(rehearsal: Rehearsal, scores: Scores, progress: bool, time: TimeBudget | None = None) -> list[Way]:
    """The allocations that are worth a try: equal shares, by the loss as estimated and as measured, half-way.

    Measuring takes a few runs for every group; in large networks fewer examples must do for that, or the estimate.
    """
    time = time or TimeBudget()
    examples = sum(cell.size or 1 for lockstep in (rehearsal.fitted, rehearsal.held) for cell in lockstep.cells)
    if examples < FEWEST:
        return [(("uniform",), None)]
    known: list[Curves | None] = [None] if scores.by in LOSSES else []
    affordable = MOST_WORK / max(rehearsal.network.cost().macs * len(scores), 1)
    if affordable >= min(examples, FEWEST_MEASURED):
        quick = rehearsal.quick(min(int(affordable), MEASURED))
        measured = measured_curves(quick, scores, progress, lambda: time.is_spent(CURVES))
        if measured is None:
            time.leave_out("curves of the loss measured group by group")
        else:
            known.append(measured)
    ways: list[Way] = [(("uniform",), None)]
    for curves in known:
        ways += [(("loss",), curves), (("uniform", "loss"), curves)]
    return ways


@dataclass(frozen=True)
class Drop:
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


def smallest_within(allocator: Allocator, unit: str, asked: float, loss: Loss | None) -> tuple[Plan, Drop]:
    """The smallest plan, in MACs, whose drop on the examples held out is within a bound.

    Raises:
        BudgetError: even the largest plan tried drops more.
    """
    _, way = allocator.best({"macs": _reachable(allocator, 0.5)})
    low, high = _reachable(allocator, LEAST), 1.0
    found: tuple[Plan, Drop] | None = None
    drop = None
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        tried = allocator.plan({"macs": middle}, way)
        drop = measured_drop(allocator.rehearsal, tried, unit, asked, loss)
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


def _reachable(allocator: Allocator, macs: float) -> float:
    """This fraction of the MACs, or the least that can be reached."""
    low, high = macs, 1.0
    for _ in range(12):
        try:
            allocator.plan({"macs": low}, (("uniform",), None))
            return low
        except BudgetError:
            low = low + (high - low) / 4
    return high


def measured_drop(rehearsal: Rehearsal, tried: Plan, unit: str, asked: float, loss: Loss | None) -> Drop:
    """By how much the loss or the accuracy changes on the examples held out."""
    changes = torch.cat(list(CHANGES[unit](rehearsal, tried, loss)))
    mean, spread = float(changes.mean()), float(changes.std()) if len(changes) > 1 else 0.0
    half = NORMAL * spread / len(changes) ** 0.5
    return Drop(unit, asked, mean, mean - half, mean + half, len(changes))


def _loss_changes(rehearsal: Rehearsal, tried: Plan, loss: Loss | None) -> Iterator[Tensor]:
    """How much each example's loss grows: against the label, or the dense network's output."""
    for cell, dense, cut in rehearsal.outputs(tried.kept):
        reference, examples = Reference(cell.target, dense), cell.size or 1
        before, after = (example_losses(loss, output, reference, examples).double() for output in (dense, cut))
        yield (after - before).cpu()


def _accuracy_changes(rehearsal: Rehearsal, tried: Plan, loss: Loss | None) -> Iterator[Tensor]:
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


CHANGES: Mapping[str, Callable[[Rehearsal, Plan, Loss | None], Iterator[Tensor]]] = {
    "loss": _loss_changes,
    "accuracy": _accuracy_changes,
}
