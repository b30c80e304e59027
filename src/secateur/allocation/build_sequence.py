"""The sequence of removals of an allocation, from scores."""

import math
from collections.abc import Mapping, Sequence, Set

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.loss_curves import Curves, check_curves, curves_of
from secateur.allocation.loss_order import loss_aware
from secateur.allocation.removal_sequence import RemovalSequence
from secateur.allocation.score_checks import check_scores
from secateur.allocation.strategies import LOSSES, STRATEGIES, OrderContext, Strategy, halfway_order
from secateur.coupling.group import Group
from secateur.coupling.group_sizes import sizes_in_steps
from secateur.coupling.network import Kept, Network
from secateur.coupling.residual_blocks import blocks_of, groups_inside
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import preferred_multiple
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import Scores
from secateur.options import check_name
from secateur.options.table import check_option

ORDERS: Mapping[str, Strategy] = {**STRATEGIES, "loss": loss_aware}


def build_sequence(
    network: Network,
    scores: Scores,
    allocation: str | Sequence[str],
    round_to: int,
    floor: float,
    units: Sequence[str] = (),
    curves: Curves | None = None,
    latency: LatencyTable | None = None,
    step: int = 1,
    dropped: Sequence[str] = (),
    fixed_groups: Kept | None = None,
    fills: bool = False,
) -> RemovalSequence:
    """Build the sequence of an allocation.

    Args:
        network: the network.
        scores: of its units.
        allocation: its name, or several: half-way between them.
        round_to: the number that sizes are multiples of.
        floor: the fewest units of a group; below 1 a fraction of the group.
        units: of the budget.
        curves: the loss by the number of removed units, by group; by default the scores.
        latency: the times of this machine, for a budget in latency.
        step: channels that kernels work on at once.
        dropped: the paths of blocks that are removed as a whole.
        fixed_groups: the units that are kept of groups that lose no others, by group.
        fills: whether what still fits a budget is given back.

    Raises:
        BudgetError: the scores are of another network, or do not suffice for the allocation.
        NameMatchError: there is no such allocation or block.
    """
    names = _checked_names(allocation, scores, curves)
    inner_groups = {group.name for group in groups_inside(network, dropped)}
    groups = _remaining_groups(network, scores, inner_groups | (fixed_groups or {}).keys())
    if curves is not None:
        check_curves(curves, {group.name: group.size for group in groups})
    sizes = _possible_sizes(groups, round_to, floor, step)
    group_curves = curves_of(scores) if curves is None else curves
    base = {name: units for name, units in (fixed_groups or {}).items() if name not in inner_groups}
    base |= remaining_blocks(network, dropped)
    context = OrderContext(network, groups, units, group_curves, latency, sizes, step, base)
    values = [scores[group.name].values.double() for group in groups]
    rankings = tuple(torch.argsort(value, stable=True) for value in values)
    orders = [ORDERS[name](context, values) for name in names]
    order = orders[0] if len(orders) == 1 else halfway_order(orders)
    return RemovalSequence(context, rankings, order, bool(scores.means), names == ["loss"] and step > 1, fills)


def _checked_names(allocation: str | Sequence[str], scores: Scores, curves: Curves | None) -> list[str]:
    """Return the names of an allocation.

    Raises:
        NameMatchError: there is none of that name.
        BudgetError: it goes by losses, and neither scores nor curves are losses.
    """
    names = [allocation] if isinstance(allocation, str) else list(allocation)
    for name in names:
        check_name(name, ORDERS, f"allocation={name!r} is unknown", shows=False)
        if name == "loss" and curves is None and scores.by not in LOSSES:
            raise BudgetError(
                f"allocation='loss' needs the loss by the number of removed units, which scores by {scores.by!r} "
                "don't tell; give curves=, or rank by 'obs'"
            )
    return names


def _remaining_groups(network: Network, scores: Scores, excluded: Set[str]) -> tuple[Group, ...]:
    """Return the groups with scores that may lose units.

    Raises:
        BudgetError: the scores are of another network.
    """
    groups = tuple(group for group in network.groups if group.name in scores and group.name not in excluded)
    check_scores(network, groups, scores)
    return groups


def _possible_sizes(groups: Sequence[Group], round_to: int, floor: float, step: int) -> tuple[np.ndarray, ...]:
    """Return for each group the sizes that it may have, ascending."""
    check_option("round_to", round_to)
    check_option("floor", floor)
    multiples = [math.lcm(int(round_to), preferred_multiple(group, step)) for group in groups]
    return tuple(sizes_in_steps(group, multiple, floor) for group, multiple in zip(groups, multiples, strict=True))


def remaining_blocks(network: Network, dropped: Sequence[str]) -> dict[str, Tensor]:
    """Return the blocks that are kept, by the name of their group.

    Raises:
        NameMatchError: a path is none of the network's blocks.
    """
    if not dropped:
        return {}
    group = blocks_of(network)
    paths = () if group is None else group.block_paths
    for path in dropped:
        check_name(path, paths, "dropped names no block that can be left out beside other units:")
    assert group is not None
    indices = [index for index, path in enumerate(paths) if path not in dropped]
    return {group.name: torch.tensor(indices, dtype=torch.long)}
