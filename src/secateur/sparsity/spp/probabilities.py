"""By how much each group's probability of being pruned moves (Wang et al. 2018, section 3.2)."""

import math

import torch
from torch import Tensor

LARGEST = 0.05
TURN = 0.25


def increments(ranks: Tensor, count: float, largest: float = LARGEST, turn: float = TURN) -> Tensor:
    """The step of each group's probability, by its rank among those that are not pruned for good, weakest first.

    An exponential that falls from `largest` at rank 0 to `turn` times that, its mirror image through that point beyond:
    nothing at rank `count`, so many as are still to be pruned, and negative behind, so that stronger groups recover.

    Args:
        ranks: (groups,).
        count: how many are still to be pruned.

    Example:
        >>> [round(float(step), 6) for step in increments(torch.tensor([0.0, 2 / 3 * 9, 9.0]), 9)]
        [0.05, 0.0125, 0.0]
    """
    rate = (math.log(2) - math.log(turn)) / count
    middle = -math.log(turn) / rate
    ranks = ranks.double()
    falling = largest * torch.exp(-rate * ranks)
    mirrored = 2 * turn * largest - largest * torch.exp((-rate * (2 * middle - ranks)).clamp_max(50))
    return torch.where(ranks <= middle, falling, mirrored)
