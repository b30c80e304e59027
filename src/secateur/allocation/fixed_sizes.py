"""Groups whose sizes the user gives: the units that they keep, whatever the budget takes from the others."""

from dataclasses import replace

import torch
from torch import Tensor

from secateur.coupling.group_sizes import Sizes, kept_units, requested_sizes
from secateur.coupling.network import Kept, Network
from secateur.coupling.plan import Plan
from secateur.importance.scores import Scores


def removal_orders(scores: Scores) -> dict[str, Tensor]:
    """Return the units of each group in ascending order of their scores, by group."""
    return {name: torch.argsort(scores[name].values.double(), stable=True) for name in scores}


def fixed_units(network: Network, scores: Scores, sizes: Sizes, round_to: int, floor: float) -> dict[str, Tensor]:
    """Return the units that the groups keep whose sizes are given, by group.

    Args:
        network: the network.
        scores: of its units.
        sizes: as `Plan.with_kept` takes them.
        round_to: the number that sizes are multiples of.
        floor: the fewest units of a group; below 1 a fraction of the group.

    Raises:
        SecateurError: as `Plan.with_kept` raises.
    """
    orders = removal_orders(scores)
    requests = requested_sizes(network, sizes, round_to, floor)
    return {name: kept_units(network[name], request, orders.get(name)) for name, request in requests.items()}


def sizes_in_round(network: Network, sizes: Sizes, share: float) -> dict[str, float]:
    """Return the fractions that the groups keep whose sizes are given, when a share of the rounds is done.

    Every round keeps the same fraction of what the one before kept.
    """
    requests = requested_sizes(network, sizes)
    lengths = {name: len(size) if isinstance(size, Tensor) else size for name, size in requests.items()}
    return {name: max(length / network[name].size, 1e-9) ** share for name, length in lengths.items()}


def fixed_units_without_scores(network: Network, sizes: Sizes, round_to: int, floor: float) -> dict[str, Tensor]:
    """Return as many units as the groups keep whose sizes are given, whichever they will be, by group.

    Raises:
        SecateurError: as `Plan.with_kept` raises.
    """
    requests = requested_sizes(network, sizes, round_to, floor)
    return {
        name: request if isinstance(request, Tensor) else torch.arange(request) for name, request in requests.items()
    }


def without_groups(scores: Scores, names: Kept) -> Scores:
    """Return scores without those of some groups."""
    if not names:
        return scores
    return replace(scores, groups={name: scores[name] for name in scores if name not in names}, of="")


def with_size_note(plan: Plan, fixed_groups: Kept, scores: Scores) -> Plan:
    """Return a plan with a note on the groups whose sizes were given, and with the order of all units."""
    plan = replace(plan, ranked=removal_orders(scores))
    if not fixed_groups:
        return plan
    sizes = ", ".join(f"{name} {len(units)} of {plan.network[name].size}" for name, units in fixed_groups.items())
    return replace(plan, notes=(f"sizes that were given: {sizes}", *plan.notes))
