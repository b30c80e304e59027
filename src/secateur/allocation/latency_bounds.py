"""Plans within a budget in time: sizes by a table of layer times, checked by cutting and timing."""

import math
import statistics
from dataclasses import replace
from functools import partial

from torch import nn

from secateur.allocation.block_search import best_plan
from secateur.allocation.budget import LATENCY
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.remaining_fractions import with_latency
from secateur.allocation.search import PlanSearch
from secateur.allocation.unmet_budgets import UnmetBudgetError
from secateur.coupling.plan import Budget, Plan
from secateur.errors import BudgetError
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.generation import GenerationPhase
from secateur.evaluation.latency_table import LatencyTable
from secateur.evaluation.measured_latency import measure_generation, measure_latency
from secateur.evaluation.runtimes import runtime_of
from secateur.evaluation.timing import Stopwatch
from secateur.surgery.cut import cut
from secateur.utils.distributed import broadcast_if_shared
from secateur.utils.progress import track

ATTEMPTS = 6
CLOSE, NEAR = 1.02, 0.96  # of the time that was asked for: the most that is accepted, and what is near enough to it
FROM_TABLE = "the time is estimated from a table of layer times; give model= to have the plan cut and timed"


class LatencyClock:
    """The times of a network on this machine: of the dense network as a whole, and of its layers at several sizes.

    Args:
        calibration: the network, and the batch that it is timed on.
        model: the dense model; None: times are estimated from the layers alone.
        target: the device that the small network is for.
        table: the times of the layers; None: they are measured.
        phase: the phase of text generation that is timed in the place of the batch; None for the batch.
    """

    def __init__(
        self,
        calibration: Calibration,
        model: nn.Module | None,
        target: str,
        table: LatencyTable | None = None,
        phase: GenerationPhase | None = None,
    ) -> None:
        batch, runtime = calibration.microbatches[0], runtime_of(target)
        self.model = model
        writes = calibration.network.program.writes
        self.stopwatch = None if model is None else Stopwatch(model, batch, runtime, writes, phase)
        times = [] if self.stopwatch is None else broadcast_if_shared(self.stopwatch.dense_ms, "times of the network")
        total = min(times) / 1e3 if times else None
        network = calibration.network

        def measured_table() -> LatencyTable:
            if model is not None and phase is not None:
                return measure_generation(network, batch, model, phase, total or 0.0)
            return measure_latency(network, batch, runtime, total)

        self.table = broadcast_if_shared(measured_table, "times of layers") if table is None else table
        self.dense_ms = statistics.median(times) if times else 1e3 * self.table.dense_seconds


def plan_within_latency(search: PlanSearch, clock: LatencyClock, keep: Budget) -> Plan:
    """Return the largest of a few plans that keeps a budget in time when it is cut and timed.

    Args:
        search: makes the plans.
        clock: the times of the network; without a model, the first plan is taken as the table of layer times has it.
        keep: the parsed budget.

    Raises:
        BudgetError: no plan keeps it.
    """
    limits = with_latency(search.simulator.network, keep, clock.dense_ms)
    try:
        if clock.stopwatch is None or clock.model is None:
            return replace(best_plan(search, limits).with_note(FROM_TABLE).plan, keep=dict(keep))
        return _cut_and_time_plans(search, clock.model, clock.stopwatch, limits, keep)
    except UnmetBudgetError as failure:
        raise failure.in_units_of(keep, clock.dense_ms) from None


def _time_ratio(stopwatch: Stopwatch, model: nn.Module, plan: Plan) -> float:
    """Return the time of a plan as a fraction of the dense network's."""
    return stopwatch.time_ratio(cut(model, plan))


def _timed_text(stopwatch: Stopwatch) -> str:
    """Return what is timed, with the advice where a budget can't be kept."""
    if stopwatch.phase is None:
        return "a batch like the first one; ask for more, or give larger batches"
    return f"text generation with {stopwatch.phase.length} tokens; ask for more, or give a larger context_length="


def _cut_and_time_plans(
    search: PlanSearch, model: nn.Module, stopwatch: Stopwatch, limits: Budget, keep: Budget
) -> Plan:
    """Cut and time plans of several sizes.

    Args:
        search: makes the plans.
        model: the dense model.
        stopwatch: times them.
        limits: the budget in fractions.
        keep: the same as the user gave it.
    """
    limit, best, ratio = limits[LATENCY], None, 1.0
    fraction, notes = limit, tuple[str, ...]()
    allocation: Allocation | None = None
    low, high = 0.0, 1.0  # a fraction that is kept, or can't be reached; one that takes too long
    for _ in track(range(ATTEMPTS), "timed plans"):
        try:
            plan, allocation = _next_plan(search, {**limits, LATENCY: fraction}, allocation)
        except BudgetError:
            if allocation is None:
                raise
            low = fraction
            fraction = math.sqrt(low * high)
            continue
        notes = notes or plan.notes
        measure = partial(_time_ratio, stopwatch, model, search.tied_network.separate(plan))
        ratio = broadcast_if_shared(measure, "the time of a plan") / limit
        if ratio > CLOSE:
            high = fraction
        else:
            low, best = fraction, plan
            if ratio >= NEAR:
                break
        previous, fraction = fraction, math.sqrt(low * high) if low > 0 and high < 1 else min(fraction / ratio, 1.0)
        if fraction == previous:
            break
    if best is None:
        raise BudgetError(
            f"keep={dict(keep)} was not kept: the last plan tried takes {ratio * limit:.2f} of the time for "
            f"{_timed_text(stopwatch)}, for which fixed costs count less"
        )
    return replace(best, keep=dict(keep), notes=notes)


def _next_plan(search: PlanSearch, budget: Budget, allocation: Allocation | None) -> tuple[Plan, Allocation]:
    """Return the plan for a budget by an allocation, and that allocation; without one, the best of several."""
    if allocation is not None:
        return search.plan(budget, allocation), allocation
    candidate = best_plan(search, budget)
    return candidate.plan, candidate.allocation
