"""Norms of incoming weights (Li et al. 2017), over all the weights that make a unit."""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.importance.evidence import Evidence
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.network.program import wide
from secateur.network.units import Group


@criterion("l1")
def l1(evidence: Evidence) -> dict[str, GroupScores]:
    """Sum of the absolute incoming weights."""
    return {group.name: GroupScores.exact(_incoming(evidence, group, torch.abs)) for group in evidence.groups}


@criterion("l2")
def l2(evidence: Evidence) -> dict[str, GroupScores]:
    """Root of the sum of the squared incoming weights."""
    return {group.name: GroupScores.exact(_incoming(evidence, group, torch.square).sqrt()) for group in evidence.groups}


def _incoming(evidence: Evidence, group: Group, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """The measure of each entry of the weights (not biases) that make a unit, summed. (units,)"""
    total = torch.zeros(group.size + 1, dtype=torch.float64)
    for member in group.members:
        weight = evidence.network.program.state(member.tensor).detach().cpu()
        if member.produced and weight.dim() > 1:
            rows = measure(wide(weight)).movedim(member.axis, 0).flatten(1).sum(1)
            total.index_add_(0, local_units(member.units, group), rows)
    return total[:-1]


def local_units(units: Tensor, group: Group) -> Tensor:
    """Units of the network counted within a group; those of others become the number after the last."""
    inside = (units >= group.offset) & (units < group.offset + group.size)
    return torch.where(inside, units - group.offset, group.size)
