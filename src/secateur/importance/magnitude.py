"""Criteria of a unit's incoming weights alone.

They are norms (Li et al. 2017), distances to the weights of other units (FPGM, He et al. 2019), and the scale of batch
norms (Liu et al. 2017).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.errors import DataError
from secateur.graph.operators import arguments
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.masking.batch_norms import norms_of
from secateur.utils.dtypes import as_real, real_product, to_widest


@criterion("l1", uses="nothing")
def l1(context: CriterionContext) -> dict[str, GroupScores]:
    """Sum of the absolute incoming weights."""
    return {group.name: GroupScores.exact(_measured_weights(context, group, torch.abs)) for group in context.groups}


@criterion("l2", uses="nothing")
def l2(context: CriterionContext) -> dict[str, GroupScores]:
    """Root of the sum of the squared incoming weights."""
    return {
        group.name: GroupScores.exact(_measured_weights(context, group, lambda w: real_product(w, w)).sqrt())
        for group in context.groups
    }


@criterion("fpgm", uses="nothing")
def geometric_median(context: CriterionContext) -> dict[str, GroupScores]:
    """Sum of the distances of the unit's incoming weights to those of all others of its group (He et al. 2019).

    The units nearest to the geometric median are the easiest to replace by others, and are removed first.
    """
    scores = {}
    for group in context.groups:
        squares = torch.zeros(group.size, group.size, dtype=torch.float64)
        for rows in _rows_of(context.network, group):
            squares += torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
        scores[group.name] = GroupScores.exact(squares.sqrt().sum(1))
    return scores


@criterion("batchnorm-scale", uses="nothing")
def batchnorm_scale(context: CriterionContext) -> dict[str, GroupScores]:
    """The absolute scale of the batch norms behind the unit, summed over them (Liu et al. 2017).

    Raises:
        DataError: a group has no batch norm with a scale.
    """
    scores = {}
    norms = norms_of(context.network)
    for group in context.groups:
        total = torch.zeros(group.size + 1, dtype=torch.float64)
        has_scale = False
        for node, units in norms.items():
            name = context.network.program.state_names.get(arguments(node)["weight"], "")
            if name and group.owns(units):
                has_scale = True
                scale = context.network.program.state(name).detach().cpu().double()
                total.index_add_(0, local_units(units, group), scale.abs())
        if not has_scale:
            groups = [
                other_group
                for other_group in context.groups
                if not any(other_group.owns(units) for units in norms.values())
            ]
            without = [other_group.name for other_group in groups]
            raise DataError(
                f"no batch norm with a scale is behind {group.name}, which 'batchnorm-scale' ranks by; skip "
                f"{', '.join(without) or group.name}, or rank by 'l2'"
            )
        scores[group.name] = GroupScores.exact(total[:-1])
    return scores


def incoming(network: Network, group: Group, weight_of: Callable[[str], Tensor]) -> Tensor:
    """Return the sum of a function of each unit's incoming weights (not biases), (units,).

    Args:
        network: the network.
        group: the group.
        weight_of: a function from a weight's name to a tensor of its shape.
    """
    total = torch.zeros(group.size + 1, dtype=torch.float64)
    for member in group.members:
        if member.is_producer and network.program.state(member.tensor).dim() > 1:
            rows = to_widest(weight_of(member.tensor)).movedim(member.axis, 0).flatten(1).sum(1)
            total.index_add_(0, local_units(member.units, group), rows.cpu().double())
    return total[:-1]


def _measured_weights(context: CriterionContext, group: Group, measure: Callable[[Tensor], Tensor]) -> Tensor:
    state = context.network.program.state
    return incoming(context.network, group, lambda name: measure(to_widest(state(name).detach())))


def _rows_of(network: Network, group: Group) -> list[Tensor]:
    """Return the incoming weights of each unit, from each tensor, (units, weights)."""
    matrices = []
    for member in group.members:
        weight = network.program.state(member.tensor).detach().cpu()
        if member.is_producer and weight.dim() > 1:
            rows = as_real(weight).double().movedim(member.axis, 0).flatten(1)
            local = local_units(member.units, group)
            order = local.argsort(stable=True)
            counts = torch.bincount(local, minlength=group.size + 1)[: group.size]
            by_unit = rows[order[: int(counts.sum())]].split(counts.tolist())
            padded_rows = torch.nn.utils.rnn.pad_sequence(
                list(by_unit), batch_first=True
            )  # (units, most rows, weights)
            matrices.append(padded_rows.flatten(1))
    return matrices


def local_units(units: Tensor, group: Group) -> Tensor:
    """Return the numbers of units within a group; units of others get one number behind them."""
    local = units - group.offset
    return torch.where((local >= 0) & (local < group.size), local, group.size)
