"""The record of orders and kept blocks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PivotedMatrices:
    """Orders, and the blocks that are kept.

    Args:
        orders: the unit at each position, by the name of the order.
        blocks: the blocks of the reordered matrix that are kept, by layer (block rows, block columns).
        shape: the shape of a block.
        retained: the fraction of the absolute weight within them, by layer.
        is_locally_optimal: whether no single step retains more: other blocks for these orders, and for these blocks
            another order that no matrix has along both axes, or a swap of two units of one that some matrix has.
    """

    orders: Mapping[str, np.ndarray]
    blocks: Mapping[str, np.ndarray]
    shape: tuple[int, int]
    retained: Mapping[str, float]
    is_locally_optimal: bool = False
