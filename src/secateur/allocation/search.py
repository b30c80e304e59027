"""How many units go, and from where: several allocations are rehearsed, the one nearest to the dense network wins."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from secateur.allocation.block_order import order_of_blocks
from secateur.allocation.budget import fractions
from secateur.allocation.candidates import CURVES, FEWEST, MEASURED, Allocation
from secateur.allocation.plan import plan
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget, Plan
from secateur.coupling.residual_blocks import blocks_of
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import ANY, channel_step
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import GroupScores, Scores
from secateur.utils.time_budget import TimeBudget

REHEARSALS = 0.5  # share of a time budget
REHEARSED = 192
MOST_FILLED = 2  # of the ways that come nearest, those that are tried with sizes that fill kernels
COARSE = (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1)
REFINED = 2
EXCHANGE = (
    1.5  # by which power of the speed gained what is lost may grow; halving the MACs loses about four times as much
)


@dataclass(frozen=True, eq=False)
class PlanSearch:
    """What plans are made from, but for the budget.

    Args:
        rehearsal: to try plans on.
        scores: what the units are worth.
        latency: this machine's times, for budgets in latency.
        round_to, floor: as `plan` takes them.
        ways: the allocations to try, with the curves that they go by.
        time: in which they are tried.
        target: the device whose kernels sizes fill where that costs nothing.
        progress: whether to show a progress bar.
    """

    rehearsal: PlanSimulator
    scores: Scores
    latency: LatencyTable | None
    round_to: int
    floor: float
    ways: Sequence[Allocation]
    time: TimeBudget = field(default_factory=TimeBudget)
    target: str = ANY
    progress: bool = False

    @property
    def _step(self) -> int:
        """The channels that kernels of the device work on at once."""
        return channel_step(self.target, self.rehearsal.network.device).size

    def plan(self, keep: Budget, way: Allocation) -> Plan:
        if way.whole:
            try:
                return self._plan_around(keep, way)
            except BudgetError:  # other groups alone don't save as much
                pass
        return self._plan(keep, way, self.scores)

    def _plan_around(self, keep: Budget, way: Allocation) -> Plan:
        """A plan by which groups of some kinds lose nothing."""
        groups, sizes = dict[str, GroupScores](), dict[str, int]()
        for name in self.scores:
            group = self.rehearsal.network[name]
            if group.kind in way.whole:
                sizes[name] = group.size
            else:
                groups[name] = self.scores[name]
        chosen = self._plan(keep, way, replace(self.scores, groups=groups, of=""))
        return replace(chosen, kept={**chosen.kept, **{name: torch.arange(size) for name, size in sizes.items()}})

    def _plan(self, keep: Budget, way: Allocation, scores: Scores) -> Plan:
        return plan(
            self.rehearsal.network,
            scores,
            keep,
            allocation=way.names,
            curves=way.curves,
            latency=self.latency,
            round_to=self.round_to,
            floor=self.floor,
            target=way.target,
            dropped=way.dropped,
        )

    def best(self, keep: Budget) -> tuple[Plan, Allocation]:
        """The plan that comes nearest to the dense network when it is rehearsed, and its way.

        Sizes that fill the device's kernels are preferred where they cost nothing: where they lose no more than any
        plan would that takes as little time. Where blocks are units beside others, plans without any of them are tried
        beside those that leave some out.
        """
        if blocks_of(self.rehearsal.network) is None:
            return self._best_of_ways(keep)[:2]
        return self._best_with_blocks(keep)

    def _best_of_ways(self, keep: Budget) -> tuple[Plan, Allocation, float]:
        """The best plan of any way to allocate, and what it loses; infinite where nothing was rehearsed."""
        plans = _each_once([(self.plan(keep, way), way) for way in self.ways])
        if self.latency is not None:  # the time of other sizes is that of the next that fill
            plans = list(self._filling(keep, self.ways)) or plans
        losses = self._rehearsed([candidate for candidate, _ in plans]) if len(plans) > 1 else [None]
        ranked = sorted(range(len(plans)), key=lambda at: _mean(losses[at]))
        best, before = plans[ranked[0]], losses[ranked[0]]
        nearest = [plans[at][1] for at in ranked[:MOST_FILLED]]
        has_time = len(plans) == 1 or not any(each is None for each in losses)
        filling = list(self._filling(keep, nearest)) if has_time and self.latency is None else []
        same = [pair for pair in filling if _counts_of(pair[0]) == _counts_of(best[0])]
        if same:
            return *_with_note(same[0], self._step), _mean(before)
        if not filling:
            return *best, _mean(before)
        unknown = [best] if len(plans) == 1 else []
        judged = self._rehearsed([candidate for candidate, _ in (*unknown, *filling)])
        before = judged.pop(0) if unknown else before
        other = min(range(len(filling)), key=lambda at: _mean(judged[at]))
        after = judged[other]
        if before is None or after is None:
            return *best, _mean(before)
        chosen = _preferred(best, before, filling[other], after)
        return *chosen, _mean(after if chosen[1].target != ANY else before)

    def _best_with_blocks(self, keep: Budget) -> tuple[Plan, Allocation]:
        """The best plan with some blocks left out, or none, and channels cut for the rest of the budget."""
        units, network = list(keep), self.rehearsal.network
        quick = self.rehearsal.quick_held_out(MEASURED)

        def left(kept: Kept) -> float:
            return sum(fractions(network, kept, network.cost(kept), units, self.latency).values())

        order = order_of_blocks(quick, left, self.progress, lambda: self.time.is_spent(CURVES))
        tried: dict[int, tuple[float, Plan, Allocation]] = {}
        refusal: BudgetError | None = None
        try:
            without, way, loss = self._best_of_ways(keep)
            tried[0] = loss, without, way
        except BudgetError as failure:
            refusal = failure
            way = next((way for way in self.ways if way.names == ("loss",)), self.ways[0])
            way = way._replace(target=self.target if self.round_to == 1 else ANY)
        for count in _counts(len(order)):
            if not self.time.is_spent(REHEARSALS):
                self._try_blocks(keep, way._replace(dropped=order[:count]), tried)
        for _ in range(REFINED):
            if not tried or self.time.is_spent(REHEARSALS):
                break
            for count in _between(sorted(tried), min(tried, key=lambda at: tried[at][0])):
                self._try_blocks(keep, way._replace(dropped=order[:count]), tried)
        if not tried:
            assert refusal is not None
            raise refusal
        loss, chosen, way = min(tried.values(), key=lambda each: each[0])
        return replace(chosen, notes=(*chosen.notes, _block_note(tried, len(way.dropped)))), way

    def _try_blocks(self, keep: Budget, way: Allocation, tried: dict[int, tuple[float, Plan, Allocation]]) -> None:
        """Rehearse a plan with some blocks left out, if it meets the budget and was not tried before."""
        if len(way.dropped) in tried:
            return
        try:
            candidate = self.plan(keep, way)
        except BudgetError:
            return
        loss = self.rehearsal.quick(REHEARSED).divergence(candidate.kept)
        tried[len(way.dropped)] = (loss, candidate, way)

    def _filling(self, keep: Budget, ways: Sequence[Allocation]) -> Iterator[tuple[Plan, Allocation]]:
        """Plans in these ways whose sizes fill the device's kernels, each once; none where no such plan meets the
        budget."""
        seen: set[tuple[int, ...]] = set()
        if self._step == 1 or self.round_to > 1 or self.rehearsal.examples < FEWEST:
            return
        for way in ways:
            target = way._replace(target=self.target)
            try:
                candidate = self.plan(keep, target)
            except BudgetError:
                continue
            counts = _counts_of(candidate)
            if counts not in seen:
                seen.add(counts)
                yield candidate, target

    def _rehearsed(self, plans: Sequence[Plan]) -> list[Tensor | None]:
        """The divergence of each example (examples,) for each plan; None for those left out for want of
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


def _counts(blocks: int) -> list[int]:
    """How many blocks are left out at first: a few numbers from none to all."""
    return sorted({round(blocks * share) for share in COARSE})


def _between(tried: Sequence[int], best: int) -> list[int]:
    """The numbers of blocks half-way from the best one so far to its neighbours."""
    at = tried.index(best)
    middles = [(best + other) // 2 for other in (*tried[max(at - 1, 0) : at], *tried[at + 1 : at + 2])]
    return [count for count in middles if count not in tried]


def _block_note(tried: Mapping[int, tuple[float, Plan, Allocation]], count: int) -> str:
    """What was found of leaving blocks out, in words."""
    losses = ", ".join(f"{number}: {tried[number][0]:.4f}" for number in sorted(tried))
    what = (
        "no block is left out" if count == 0 else f"{count} blocks are left out: {', '.join(tried[count][2].dropped)}"
    )
    return f"{what}; divergence by how many are: {losses}"


def _each_once(plans: Sequence[tuple[Plan, Allocation]]) -> list[tuple[Plan, Allocation]]:
    """Plans that differ: of one ranking, as many units of each group tell all."""
    by_counts: dict[tuple[int, ...], tuple[Plan, Allocation]] = {}
    for candidate, way in plans:
        by_counts.setdefault(_counts_of(candidate), (candidate, way))
    return list(by_counts.values())


def _counts_of(plan: Plan) -> tuple[int, ...]:
    """How many units of each group stay, in the order of the groups' names."""
    return tuple(len(plan.kept[name]) for name in sorted(plan.kept))


def _with_note(best: tuple[Plan, Allocation], step: int) -> tuple[Plan, Allocation]:
    """The best plan of any sizes, where the device's preference makes the same one, with a note that says so."""
    note = f"sizes fill steps of {step} channels as far as they can: the best plan of any sizes does, too"
    return replace(best[0], notes=(*best[0].notes, note)), best[1]


def _mean(losses: Tensor | None) -> float:
    return math.inf if losses is None else float(losses.mean())


def _preferred(
    plain: tuple[Plan, Allocation], plain_losses: Tensor, filling: tuple[Plan, Allocation], filling_losses: Tensor
) -> tuple[Plan, Allocation]:
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
