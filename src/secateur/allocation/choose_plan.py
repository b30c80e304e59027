"""The plan for a budget, chosen among several that are tried on examples."""

from dataclasses import replace
from functools import partial

from torch import nn

from secateur.allocation.block_search import best_plan
from secateur.allocation.budget import has_time, quality_bound, timed_phase
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import PruneConfig
from secateur.allocation.fixed_sizes import fixed_units, with_size_note, without_groups
from secateur.allocation.latency_bounds import LatencyClock, plan_within_latency
from secateur.allocation.plan_sizes import Allocation, SizeRules, plan_sizes
from secateur.allocation.quality_bounds import smallest_plan_within
from secateur.allocation.saved_plans import recall_plan
from secateur.allocation.score_checks import check_scores
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.tied_groups import TiedNetwork, check_even, tie_groups
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget, Plan
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.generation import GenerationPhase, generation_phase
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.importance.scores import Scores
from secateur.utils.distributed import check_same_inputs, is_shared

UNIFORM = Allocation(("uniform",))


def choose_plan(
    calibration: Calibration,
    scores: Scores,
    keep: Budget,
    config: PruneConfig,
    model: nn.Module | None = None,
    latency: LatencyTable | None = None,
) -> Plan:
    """Choose the plan for a budget by trying several on examples.

    Args:
        calibration: the traced network and the examples.
        scores: of its units.
        keep: the parsed budget; empty: only the groups lose units whose sizes are given.
        config: the settings.
        model: the dense model, to time plans beside it where the budget is in time.
        latency: the times of the layers, measured by default where the budget is in time.

    Raises:
        BudgetError: the budget can't be met, or the scores are of another network.
    """
    network = calibration.network
    if is_shared():
        check_same_inputs(f"plan for {dict(keep)} with the inputs {_digest_of(calibration, scores)}")
    check_scores(network, [group for group in network.groups if group.name in scores], scores)
    fixed_groups = fixed_units(network, scores, config.sizes or {}, config.multiple, config.floor)
    check_even(network, fixed_groups)
    if not keep:
        plan = plan_sizes(network, scores, keep, UNIFORM, SizeRules(fixed_groups=fixed_groups))
        return with_size_note(plan, fixed_groups, scores)
    tied = tie_groups(network, without_groups(scores, fixed_groups))
    tied_calibration = replace(calibration, network=tied.network)
    choose = partial(_search_plan, tied_calibration, tied, tied.budget(keep), config, model, latency, fixed_groups)
    plan = recall_plan(config.results, tied.network, tied.scores, keep, choose)
    plan = plan if tied.budget(keep) == keep else replace(plan, keep=dict(keep))
    return with_size_note(tied.separate(plan), fixed_groups, scores)


def _digest_of(calibration: Calibration, scores: Scores) -> str:
    return tensor_fingerprint([scores[name].values for name in scores], calibration.microbatches)


def _phase_of(
    keep: Budget, model: nn.Module | None, calibration: Calibration, length: int | None
) -> GenerationPhase | None:
    """Return the phase of text generation that a budget is in; None where it is in the time of a batch."""
    name = timed_phase(keep)
    if name is None or model is None:
        return None
    return generation_phase(name, model, calibration.microbatches[0], length)


def _search_plan(
    calibration: Calibration,
    tied: TiedNetwork,
    keep: Budget,
    config: PruneConfig,
    model: nn.Module | None,
    latency: LatencyTable | None,
    fixed_groups: Kept,
) -> Plan:
    """Return the best of several plans for the groups whose sizes are not given."""
    scores = tied.scores
    simulator = PlanSimulator(calibration, None if config.refits else scores.means, config.results)
    clock = None
    if has_time(keep):
        phase = _phase_of(keep, model, calibration, config.context_length)
        clock = LatencyClock(calibration, model, config.target, latency, phase)
    allocations = candidate_allocations(simulator, scores, config)
    search = PlanSearch(simulator, tied, config, None if clock is None else clock.table, allocations, fixed_groups)
    if clock is not None:
        return plan_within_latency(search, clock, keep)
    bound = quality_bound(keep)
    if bound is not None:
        return smallest_plan_within(search, bound, keep[bound])
    return best_plan(search, keep).plan
