"""How many units go, and from where: several allocations are rehearsed, the one nearest to the dense network wins."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from secateur.budget.curves import Curves
from secateur.budget.device import ANY, channel_step
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
EXCHANGE = (
    1.5  # by which power of the speed gained what is lost may grow; halving the MACs loses about four times as much
)


class Way(NamedTuple):
    """An allocation to try.

    Args:
        names: its name, or several: half-way between them.
        curves: what the loss grows by, where they are not the scores themselves.
        target: the device whose kernels the sizes fill; "any": whatever the scores say.
    """

    names: tuple[str, ...]
    curves: Curves | None = None
    target: str = ANY


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
        target: the device whose kernels sizes fill where that costs nothing.
    """

    rehearsal: Rehearsal
    scores: Scores
    latency: LatencyTable | None
    round_to: int
    floor: float
    ways: Sequence[Way]
    time: TimeBudget = field(default_factory=TimeBudget)
    target: str = ANY

    def plan(self, keep: Keep, way: Way) -> Plan:
        return plan(
            self.rehearsal.network,
            self.scores,
            keep,
            allocation=way.names,
            curves=way.curves,
            latency=self.latency,
            round_to=self.round_to,
            floor=self.floor,
            target=way.target,
        )

    def best(self, keep: Keep) -> tuple[Plan, Way]:
        """The plan that comes nearest to the dense network on the examples held out, and its way.

        Sizes that fill the device's kernels are preferred where they cost nothing: where they lose no more than any
        plan would that takes as little time.
        """
        plans = [(self.plan(keep, way), way) for way in self.ways]
        filling = list(self._filling(keep))
        if len(plans) == 1 and not filling:
            return plans[0]
        losses = self._rehearsed([candidate for candidate, _ in (*plans, *filling)])
        number = min(range(len(plans)), key=lambda at: _mean(losses[at]), default=0)
        others = range(len(plans), len(plans) + len(filling))
        other = min(others, key=lambda at: _mean(losses[at]), default=None)
        before, after = losses[number], None if other is None else losses[other]
        if other is None or before is None or after is None:
            return plans[number]
        return _preferred(plans[number], before, filling[other - len(plans)], after)

    def _filling(self, keep: Keep) -> Iterator[tuple[Plan, Way]]:
        """Plans whose sizes fill the device's kernels, each once; none where no such plan meets the budget."""
        seen: set[tuple[int, ...]] = set()
        device = self.rehearsal.network.device
        if channel_step(self.target, device).size == 1 or self.round_to > 1 or self.rehearsal.examples < FEWEST:
            return
        for way in self.ways:
            target = way._replace(target=self.target)
            try:
                candidate = self.plan(keep, target)
            except BudgetError:
                continue
            counts = tuple(map(len, candidate.kept.values()))
            if counts not in seen:
                seen.add(counts)
                yield candidate, target

    def _rehearsed(self, plans: Sequence[Plan]) -> list[Tensor | None]:
        """The divergence of each example held out (examples,) for each plan; None for those left out for want of
        time."""
        rehearsal, judged = self.rehearsal.quick(REHEARSED), list[Tensor | None]()
        start, longest = self.time.elapsed, 0.0
        for candidate in plans:
            if self.time.is_spent(REHEARSALS, ahead=longest):
                self.time.leave_out(f"{len(plans) - len(judged)} of {len(plans)} rehearsals of allocations")
                break
            judged.append(rehearsal.divergences(candidate.kept))
            start, longest = self.time.elapsed, max(longest, self.time.elapsed - start)
        return [*judged, *[None] * (len(plans) - len(judged))]


def _mean(losses: Tensor | None) -> float:
    return math.inf if losses is None else float(losses.mean())


def _preferred(
    plain: tuple[Plan, Way], plain_losses: Tensor, filling: tuple[Plan, Way], filling_losses: Tensor
) -> tuple[Plan, Way]:
    """Of a plan of any sizes and one whose sizes fill kernels the one to take, with a note that says why.

    What is lost may grow by less than it would if a plan of any sizes were cut down to the same time, but for what the
    examples can't tell: one standard error.
    """
    before, after = (each[0].effective for each in (plain, filling))
    assert before is not None and after is not None
    faster = before.left / max(after.left, 1)
    excess = filling_losses - plain_losses * max(faster, 1.0) ** EXCHANGE
    error = float(excess.std()) / len(excess) ** 0.5 if len(excess) > 1 else 0.0
    takes_filling = faster > 1 and float(excess.mean()) <= error
    chosen, way = filling if takes_filling else plain
    verb = "fill" if takes_filling else "do not fill"
    note = (
        f"sizes {verb} steps of {after.step} channels: divergence {float(filling_losses.mean()):.4f} at "
        f"{after.left / max(after.dense, 1):.0%} of the MACs in steps, {float(plain_losses.mean()):.4f} at "
        f"{before.left / max(before.dense, 1):.0%} with any sizes"
    )
    return replace(chosen, notes=(*chosen.notes, note)), way


def ways_of(rehearsal: Rehearsal, scores: Scores, progress: bool, time: TimeBudget | None = None) -> list[Way]:
    """The allocations that are worth a try: equal shares, by the loss as estimated and as measured, half-way.

    Measuring takes a few runs for every group; in large networks fewer examples must do for that, or the estimate.
    """
    time = time or TimeBudget()
    examples = rehearsal.examples
    if examples < FEWEST:
        return [Way(("uniform",))]
    known: list[Curves | None] = [None] if scores.by in LOSSES else []
    affordable = MOST_WORK / max(rehearsal.network.cost().macs * len(scores), 1)
    if affordable >= min(examples, FEWEST_MEASURED):
        quick = rehearsal.quick(min(int(affordable), MEASURED))
        measured = measured_curves(quick, scores, progress, lambda: time.is_spent(CURVES))
        if measured is None:
            time.leave_out("curves of the loss measured group by group")
        else:
            known.append(measured)
    ways = [Way(("uniform",))]
    for curves in known:
        ways += [Way(("loss",), curves), Way(("uniform", "loss"), curves)]
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
            allocator.plan({"macs": low}, Way(("uniform",)))
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
