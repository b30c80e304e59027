"""The change of each group's pruning probability (Wang et al. 2018, section 3.2)."""

import math

import torch
from torch import Tensor

LARGEST = 0.05
TURN = 0.25


def increments(ranks: Tensor, count: float, largest: float = LARGEST, turn: float = TURN) -> Tensor:
    """Return the change of each group's probability by its rank, weakest first, among the groups still to decide.

    The change falls exponentially from `largest` at rank 0 to `turn` times that, and continues as the mirror image
    through that point: zero at rank `count`, and negative beyond, such that stronger groups recover.

    Args:
        ranks: the ranks of the norms (groups,).
        count: the number of groups still to be pruned.
        largest: the change at rank 0.
        turn: the fraction of `largest` at which the curve turns.

    Returns:
        The changes (groups,).

    Examples:
        >>> [round(float(step), 6) for step in increments(torch.tensor([0.0, 2 / 3 * 9, 9.0]), 9)]
        [0.05, 0.0125, 0.0]
    """
    rate = (math.log(2) - math.log(turn)) / count
    middle = -math.log(turn) / rate
    ranks = ranks.double()
    falling = largest * torch.exp(-rate * ranks)
    mirrored_increments = 2 * turn * largest - largest * torch.exp((-rate * (2 * middle - ranks)).clamp_max(50))
    return torch.where(ranks <= middle, falling, mirrored_increments)
