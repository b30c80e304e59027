"""A plan from scores alone, without examples to try plans on."""

from secateur.allocation.budget import has_time, quality_bound
from secateur.allocation.config import PruneConfig
from secateur.allocation.fixed_sizes import fixed_units, with_size_note
from secateur.allocation.plan_sizes import Allocation, SizeRules, plan_tied_sizes
from secateur.allocation.remaining_fractions import NEEDS_TIMES
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import AUTO
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import Scores


def plan_without_data(
    network: Network, scores: Scores, keep: Budget, config: PruneConfig, latency: LatencyTable | None
) -> Plan:
    """Plan by one allocation, with scores alone.

    Args:
        network: the traced network.
        scores: of its units.
        keep: the parsed budget.
        config: the settings.
        latency: the times of this machine, for a budget in time.

    Raises:
        BudgetError: the budget or the allocation needs examples.
    """
    bound = quality_bound(keep)
    if bound is not None:
        raise BudgetError(f"keep={dict(keep)} is a bound on the {bound}, which is measured on examples: give data=")
    if has_time(keep) and latency is None:
        raise BudgetError(NEEDS_TIMES)
    names = [config.allocation] if isinstance(config.allocation, str) else list(config.allocation)
    if AUTO in names:
        raise BudgetError(
            "allocation='auto' tries allocations on examples: give data=, or name one, such as allocation='uniform'"
        )
    allocation = Allocation(tuple(names), config.curves, config.target, config.dropped)
    fixed_groups = fixed_units(network, scores, config.sizes or {}, config.multiple, config.floor)
    rules = SizeRules(config.multiple, config.floor, latency, fixed_groups)
    tied_plan = plan_tied_sizes(network, scores, keep, allocation, rules)
    return with_size_note(tied_plan, fixed_groups, scores)
