"""Plans within a budget in time: sizes by a table of layer times, checked by cutting and timing."""

import math
import statistics
from dataclasses import dataclass, replace
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


def _unmet_budget(keep: Budget, fraction: float, stopwatch: Stopwatch) -> BudgetError:
    """Return the error for a budget that no plan meets, with advice.

    Args:
        keep: the budget as the user gave it.
        fraction: the fraction of the dense network's time that the last plan takes.
        stopwatch: timed the plans.
    """
    timed = "a batch like the first one; ask for more, or give larger batches"
    if stopwatch.phase is not None:
        length = stopwatch.phase.length
        timed = f"text generation with {length} tokens; ask for more, or give a larger context_length="
    return BudgetError(
        f"keep={dict(keep)} was not kept: the last plan tried takes {fraction:.2f} of the time for {timed}, for which "
        "fixed costs count less"
    )


@dataclass(frozen=True)
class Bracket:
    """Two fractions of the time by the table of layers, between which the fraction to plan for lies.

    Args:
        low: a fraction whose plan meets the budget, or that cannot be reached; 0 if there is none yet.
        high: a fraction whose plan takes too long; 1 if there is none yet.
    """

    low: float = 0.0
    high: float = 1.0

    @property
    def middle(self) -> float:
        """The geometric mean of both."""
        return math.sqrt(self.low * self.high)

    def next_fraction(self, fraction: float, ratio: float) -> float:
        """Return the fraction to plan for next.

        Args:
            fraction: the last one.
            ratio: the measured time of its plan, divided by the time that was asked for.
        """
        return self.middle if self.low > 0 and self.high < 1 else min(fraction / ratio, 1.0)


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
    fraction, bracket, notes = limit, Bracket(), tuple[str, ...]()
    allocation: Allocation | None = None
    for _ in track(range(ATTEMPTS), "timed plans"):
        try:
            plan, allocation = _next_plan(search, {**limits, LATENCY: fraction}, allocation)
        except BudgetError:
            if allocation is None:
                raise
            bracket = replace(bracket, low=fraction)
            fraction = bracket.middle
            continue
        notes = notes or plan.notes
        measure = partial(_time_ratio, stopwatch, model, search.tied_network.separate(plan))
        ratio = broadcast_if_shared(measure, "the time of a plan") / limit
        best = plan if ratio <= CLOSE else best
        bracket = replace(bracket, low=fraction) if ratio <= CLOSE else replace(bracket, high=fraction)
        previous, fraction = fraction, bracket.next_fraction(fraction, ratio)
        if NEAR <= ratio <= CLOSE or fraction == previous:
            break
    if best is None:
        raise _unmet_budget(keep, ratio * limit, stopwatch)
    return replace(best, keep=dict(keep), notes=notes)


def _next_plan(search: PlanSearch, budget: Budget, allocation: Allocation | None) -> tuple[Plan, Allocation]:
    """Return the plan for a budget by an allocation, and that allocation; without one, the best of several."""
    if allocation is not None:
        return search.plan(budget, allocation), allocation
    candidate = best_plan(search, budget)
    return candidate.plan, candidate.allocation
