"""A plan for a budget by one allocation: the sizes of the groups, and the units that are kept."""

from dataclasses import replace
from typing import NamedTuple

from secateur.allocation.build_sequence import build_sequence
from secateur.allocation.fixed_sizes import removal_orders, without_groups
from secateur.allocation.loss_curves import Curves
from secateur.allocation.remaining_fractions import with_latency
from secateur.allocation.tied_groups import check_even, tie_groups
from secateur.allocation.unmet_budgets import UnmetBudgetError
from secateur.coupling.effective_macs import effective_macs
from secateur.coupling.network import Kept, Network
from secateur.coupling.plan import Budget, Plan
from secateur.evaluation.channel_steps import ANY, AUTO, channel_step
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import Scores


class Allocation(NamedTuple):
    """An allocation of a budget to the groups.

    Args:
        names: its name, or several: half-way between them.
        curves: the loss by the number of removed units, where it is not the scores themselves.
        target: the device whose kernels the sizes fill; "any": any sizes.
        dropped: the blocks that are removed as a whole, by their paths.
        whole: kinds of groups that lose no unit, if the budget can be met without them.
    """

    names: tuple[str, ...]
    curves: Curves | None = None
    target: str = ANY
    dropped: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


class SizeRules(NamedTuple):
    """The sizes that groups may have, and what they cost.

    Args:
        round_to: the number that sizes are multiples of.
        floor: the fewest units of a group; below 1 a fraction of the group.
        latency: the times of this machine, for a budget in time.
        fixed_groups: the units that are kept of groups whose sizes are given, by group.
        target: the device whose steps MACs are counted in; "any" counts as "auto".
        fills: whether what still fits the budget is given back, since units of tied groups save much at once.
    """

    round_to: int = 1
    floor: float = 1
    latency: LatencyTable | None = None
    fixed_groups: Kept | None = None
    target: str = AUTO
    fills: bool = False


ANY_SIZES = SizeRules()


def plan_tied_sizes(
    network: Network, scores: Scores, keep: Budget, allocation: Allocation, rules: SizeRules = ANY_SIZES
) -> Plan:
    """Plan by one allocation, as `plan_sizes` does, with groups tied where the network's layout ties them.

    Raises:
        BudgetError: as `plan_sizes`.
        OptionError: the sizes of tied groups are given, and differ.
    """
    fixed_groups = rules.fixed_groups or {}
    check_even(network, fixed_groups)
    tied = tie_groups(network, without_groups(scores, fixed_groups))
    plan = plan_sizes(tied.network, tied.scores, tied.budget(keep), allocation, rules._replace(fills=tied.is_tied))
    return replace(tied.separate(plan), ranked=removal_orders(scores), keep=keep)


def plan_sizes(
    network: Network, scores: Scores, keep: Budget, allocation: Allocation, rules: SizeRules = ANY_SIZES
) -> Plan:
    """Plan by one allocation.

    Args:
        network: the traced network.
        scores: of its units.
        keep: the parsed budget, without bounds on the quality.
        allocation: what it is spent by; its kinds of groups that stay whole are not looked at.
        rules: the sizes that groups may have, and what they cost.

    Raises:
        BudgetError: the budget can't be met, or the scores are of another network.
    """
    latency = rules.latency
    dense_ms = 1.0 if latency is None else 1e3 * latency.dense_seconds
    limits = with_latency(network, keep, dense_ms)
    step = channel_step(allocation.target, network.device)
    sequence = build_sequence(
        network, scores, allocation.names, rules.round_to, rules.floor, list(limits), allocation.curves, latency,
        step.size, allocation.dropped, rules.fixed_groups, rules.fills,
    )  # fmt: skip
    try:
        kept = sequence.kept_within(limits)
    except UnmetBudgetError as failure:
        raise failure.in_units_of(keep, dense_ms) from None
    cost = network.cost(kept, bool(scores.means))
    counted_target = AUTO if rules.target == ANY else rules.target
    counted_step = step if step.size > 1 else channel_step(counted_target, network.device)
    effective = effective_macs(network, kept, counted_step.size)
    orders = removal_orders(scores)
    return Plan(network, kept, scores.means, cost, network.cost(), keep, effective, ranked=orders)
