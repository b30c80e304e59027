"""Orders from which the search for blocks sets out."""

from collections.abc import Sequence

import numpy as np

from secateur.sparsity.pivoting.block_sums import Matrix, order_sizes


def start_orders(
    matrices: Sequence[Matrix], fixed: frozenset[str], number: int, draws: np.random.Generator
) -> dict[str, np.ndarray]:
    """The orders of a start: as they are, units alike side by side, units by their total weight, then random ones."""
    orders = {}
    for name, size in order_sizes(matrices).items():
        if number == 0 or name in fixed:
            orders[name] = np.arange(size)
        elif number == 1:
            orders[name] = _alike(name, matrices)
        elif number == 2:
            rows = sum((matrix.values.sum(1) for matrix in matrices if matrix.rows == name), np.zeros(size))
            columns = sum((matrix.values.sum(0) for matrix in matrices if matrix.columns == name), np.zeros(size))
            orders[name] = np.argsort(-(rows + columns), kind="stable")
        else:
            orders[name] = draws.permutation(size)
    return orders


def _alike(name: str, matrices: Sequence[Matrix]) -> np.ndarray:
    """Units side by side whose weights lie in the same places: by the second singular vector (Dhillon 2001)."""
    meeting = [matrix.values for matrix in matrices if matrix.rows == name]
    meeting += [matrix.values.T for matrix in matrices if matrix.columns == name and matrix.rows != name]
    together = np.concatenate(meeting, 1)  # (units, all that they meet)
    scaled = together / np.sqrt(np.outer(together.sum(1) + 1e-12, together.sum(0) + 1e-12))
    left, _, _ = np.linalg.svd(scaled, full_matrices=False)
    order: np.ndarray = np.argsort(left[:, min(1, left.shape[1] - 1)], kind="stable")
    return order
