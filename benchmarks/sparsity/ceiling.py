"""A bound on what blocks of a matrix hold, in whatever order: none of two rows and two columns or more hold more.

Such blocks are made of pairs of rows, so the best pairs, each with the best columns, hold as much or more. With a price
on each entry that is kept, the pairs are a matching, which the assignment problem bounds; any price gives a bound, and
the least of them is taken.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, minimize_scalar

Array = NDArray[Any]


def weight_bound(weights: Array, density: float) -> float:
    """Return the part of a matrix's absolute weights that no order and choice of blocks exceeds.

    Args:
        weights: absolute values, (rows, columns).
        density: the part of the entries that is kept.
    """
    return min(_bound_of_row_pairs(weights, density), _bound_of_row_pairs(weights.T, density))


def _bound_of_row_pairs(weights: Array, density: float) -> float:
    """Return the bound for pairs of rows, each with its own columns."""

    def bound(price: float) -> float:
        gains = np.stack([np.maximum(weights + row - price, 0).sum(1) for row in weights])  # (rows, rows)
        np.fill_diagonal(gains, -gains.max() * len(gains))  # a row is no pair
        pairs = linear_sum_assignment(gains, maximize=True)
        return float(gains[pairs].sum() / 2 + price * density * weights.size / 2)

    highest = 2 * float(np.quantile(weights, 0.99))
    return float(
        minimize_scalar(bound, bounds=(0, highest), method="bounded", options={"maxiter": 14}).fun / weights.sum()
    )
