"""Which units go: scored, in one round or several, and allocated for a budget or within a bound."""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from secateur.allocation.budget import LATENCY, QUALITY_BOUNDS, TIMES, fractions_of, with_latency
from secateur.allocation.candidates import Allocation, candidate_allocations
from secateur.allocation.plan import plan
from secateur.allocation.quality_bounds import MetricChange, smallest_plan_within
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.strategies import ORDERS
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.data.batch import Batch
from secateur.errors import BudgetError, NameMatchError, TraceError
from secateur.evaluation.channel_steps import ANY, AUTO
from secateur.evaluation.latency_table import measure_latency
from secateur.evaluation.losses import Loss
from secateur.evaluation.runtimes import runtime_of
from secateur.evaluation.timing import Stopwatch
from secateur.importance.context import network_microbatches
from secateur.importance.scores import GroupScores, Scores
from secateur.options import check_name, check_option
from secateur.recovery.chain import RepairStep, Tuning
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.recovery.repair import How, resolve_repairs, run_repairs
from secateur.surgery.cut import cut
from secateur.surgery.recipe import recipe_of
from secateur.utils.time_budget import TimeBudget

Score = Callable[[Network], Scores]
Trace = Callable[[nn.Module], Network]
ATTEMPTS = 6
CLOSE, NEAR = 1.02, 0.96  # of the time asked for: the most that is taken for kept, and what is near enough to it


@dataclass(frozen=True)
class PruneConfig:
    """What is wanted of a plan.

    Args:
        keep: the budget, or a bound on what is lost.
        allocation: as `plan` takes it; "auto": the best of several on examples held out.
        round_to, floor: as `plan` takes them; by default for a budget in latency what fills the
            processor's vectors, else 1.
        repair: as `repair` takes it, or None; plans are rehearsed if it refits.
        tuning: how repairs run.
        loss: the person's own, for a bound on it.
        target: the device whose kernels sizes fill where that costs nothing.
    """

    keep: Budget
    allocation: str | Sequence[str]
    round_to: int | None
    floor: float
    repair: How | None
    tuning: Tuning
    loss: Loss | None
    target: str = AUTO

    @property
    def time(self) -> TimeBudget:
        """How long all of it may take."""
        return self.tuning.time


@dataclass(frozen=True, eq=False)
class PruneOutcome:
    """A cut and repaired model, the plan, what each repair gave, and where a bound was set what was lost."""

    small: nn.Module
    plan: Plan
    steps: tuple[RepairStep, ...]
    drop: MetricChange | None


def plan_cut_repair(
    model: nn.Module, network: Network, scores: Scores, batches: Sequence[Batch], wish: PruneConfig
) -> PruneOutcome:
    """Plan, cut and repair."""
    found, drop = _chosen(model, network, scores, batches, wish)
    small = cut(model, found)
    given = () if wish.repair is None else run_repairs(small, model, found, batches, wish.repair, wish.tuning)
    for step in given:
        step.warn()
    if wish.time.left_out:
        warnings.warn(
            f"left out, so that it takes no more than {wish.time.seconds:g} s: {', '.join(wish.time.left_out)}; with "
            "more time the small network may be nearer to the dense one",
            stacklevel=4,
        )
    return PruneOutcome(small, found, given, drop)


def _chosen(
    model: nn.Module, network: Network, scores: Scores, batches: Sequence[Batch], wish: PruneConfig
) -> tuple[Plan, MetricChange | None]:
    """The plan, and where a bound was set what is lost; what rehearsals keep in memory is gone with them."""
    cells = network_microbatches(network, batches)
    rehearsal = PlanSimulator(network, cells, None if _refits(wish) else scores.means)
    stopwatch = Stopwatch(model, cells[0], runtime_of(wish.target)) if set(TIMES) & set(wish.keep) else None
    dense_ms = [] if stopwatch is None else stopwatch.dense_ms()
    latency = None if stopwatch is None else measure_latency(network, cells[0], stopwatch.runtime, min(dense_ms) / 1e3)
    ways = _ways(rehearsal, scores, wish)
    allocator = PlanSearch(
        rehearsal, scores, latency, wish.round_to or 1, wish.floor, ways, wish.time, _target(wish), wish.tuning.progress
    )
    if stopwatch is not None:
        limits = with_latency(network, wish.keep, statistics.median(dense_ms))
        return _timed(model, allocator, stopwatch, limits, wish.keep), None
    return _planned(allocator, wish.keep, wish.loss)


def _timed(model: nn.Module, allocator: PlanSearch, stopwatch: Stopwatch, limits: Budget, asked_for: Budget) -> Plan:
    """The largest of a few plans that keeps a budget in latency when it is cut and timed.

    Args:
        model: the dense network.
        allocator: makes the plans.
        stopwatch: times them.
        limits: the budget in fractions.
        asked_for: the same as the person gave it.

    Raises:
        BudgetError: none does.
    """
    asked, best, missed = limits[LATENCY], None, 1.0
    keep, way, notes = asked, None, tuple[str, ...]()
    low, high = 0.0, 1.0  # what is known to be kept, or out of reach; what is known to take too long
    for _ in range(ATTEMPTS):
        budget = {**limits, LATENCY: keep}
        try:
            tried, way = allocator.best(budget) if way is None else (allocator.plan(budget, way), way)
        except BudgetError:
            if way is None:
                raise
            low = keep
            keep = math.sqrt(low * high)
            continue
        notes = notes or tried.notes
        missed = stopwatch.left(cut(model, tried)) / asked
        if missed > CLOSE:
            high = keep
        else:
            low, best = keep, tried
            if missed >= NEAR:
                break
        before, keep = keep, math.sqrt(low * high) if low > 0 and high < 1 else min(keep / missed, 1.0)
        if keep == before:
            break
    if best is None:
        raise BudgetError(
            f"keep={dict(asked_for)} was not kept: the last plan tried takes {missed * asked:.2f} of the time "
            "for a batch like the first one; ask for more, or give larger batches, for which fixed costs count less"
        )
    return replace(best, keep=dict(asked_for), notes=notes)


def _planned(allocator: PlanSearch, keep: Budget, loss: Loss | None) -> tuple[Plan, MetricChange | None]:
    bound = next((unit for unit in QUALITY_BOUNDS if unit in keep), None)
    if bound is not None:
        return smallest_plan_within(allocator, bound, keep[bound], loss)
    return allocator.best(keep)[0], None


def _ways(rehearsal: PlanSimulator, scores: Scores, wish: PruneConfig) -> list[Allocation]:
    if wish.allocation != AUTO:
        return [Allocation((wish.allocation,) if isinstance(wish.allocation, str) else tuple(wish.allocation))]
    return (
        candidate_allocations(rehearsal, scores, wish.tuning.progress, wish.time)
        if _refits(wish)
        else [Allocation(("uniform",))]
    )


def _target(wish: PruneConfig) -> str:
    """The device to fill; none where the person has said what numbers of units are multiples of."""
    return ANY if wish.round_to is not None else wish.target


def _refits(wish: PruneConfig) -> bool:
    return wish.repair is not None and any(name == "refit" for name, _ in resolve_repairs(wish.repair))


def check_allocation(allocation: str | Sequence[str]) -> None:
    """
    Raises:
        NameMatchError: there is none of that name.
    """
    for name in [allocation] if isinstance(allocation, str) else allocation:
        check_name(name, (AUTO, *ORDERS), f"allocation={name!r} is unknown", shows=False)


def check_rounds(rounds: int, keep: Budget) -> None:
    """
    Raises:
        BudgetError: it is no whole number of rounds from 1 up, or there is no budget to part among them.
    """
    check_option("rounds", rounds)
    if rounds > 1 and (set(keep) & {*QUALITY_BOUNDS, *TIMES}):
        raise BudgetError(f"rounds={rounds} needs a budget that can be parted, in macs, params, bytes or units")


def score_iteratively(
    model: nn.Module,
    network: Network,
    batches: Sequence[Batch],
    score_it: Score,
    keep: Budget,
    rounds: int,
    trace_it: Trace,
) -> Scores:
    """Scores of which each part was taken on a network from which the units that go first were gone, and refitted.

    Every round keeps the same fraction of what the one before left.
    """
    scores, limits = score_it(network), fractions_of(network, keep)
    for number in range(1, rounds):
        part = plan(network, scores, {unit: value ** (number / rounds) for unit, value in limits.items()})
        small = cut(model, part)
        within = EmbeddedPrunedNetwork.of(small, network, recipe_of(model, part))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            refit(PairedExecution(within, network_microbatches(network, batches)))
            within.write(small)
        try:
            later = score_it(trace_it(small))
        except (NameMatchError, TraceError):  # a group is down to what can't be cut any more
            break
        scores = merge_scores(scores, part, later)
    return scores


def merge_scores(earlier: Scores, part: Plan, later: Scores) -> Scores:
    """Earlier scores for the units that a plan removed; above them, later ones for those that stayed."""
    found = {}
    for name in earlier:
        values, kept = earlier[name].values.clone(), part.kept[name]
        if name in later and len(later[name].values) == len(kept) < len(values):
            gone = torch.ones(len(values), dtype=torch.bool).index_fill(0, kept, False)
            fresh = later[name].values
            values[kept] = values[gone].max() + fresh - fresh.min().clamp_max(0)
        found[name] = GroupScores.exact(values)
    return replace(earlier, groups=found, note=f"{earlier.note.removesuffix(', in rounds')}, in rounds", of="")
