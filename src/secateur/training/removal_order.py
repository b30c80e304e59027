"""The order in which units of all groups are removed, the lowest scores first."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.coupling.group_sizes import sizes_in_steps


def removal_order(
    groups: Iterable[Group], alive: Tensor, scores: Mapping[str, Tensor], round_to: int, floor: float
) -> list[list[int]]:
    """Return the units that may be removed, those together that are removed together, in the order of their scores.

    Args:
        groups: the groups that lose units.
        alive: the units that are not removed yet, by their numbers in the network (units + 1,).
        scores: the importance of each group's units (units,).
        round_to: units of a group are removed in sets of this size, and its number of units becomes a multiple of it.
        floor: the fewest units that a group keeps; below 1 a fraction of the group.

    Returns:
        Sets of units' numbers in the network, the lowest sum of scores first. Sets of one group keep their order.
    """
    scored_sets: list[tuple[float, list[int]]] = []
    for group in groups:
        remaining = torch.nonzero(alive[group.span]).flatten()
        ranked_units = remaining[scores[group.name][remaining].argsort(stable=True)]
        first_count = len(ranked_units) % round_to or round_to
        fewest, highest = int(sizes_in_steps(group, round_to, floor)[0]), -math.inf
        for stop in range(first_count, len(ranked_units) - fewest + 1, round_to):
            units = ranked_units[max(stop - round_to, 0) : stop]
            highest = max(highest, float(scores[group.name][units].sum()))
            scored_sets.append((highest, (group.offset + units).tolist()))
    return [units for _, units in sorted(scored_sets, key=lambda scored: scored[0])]
