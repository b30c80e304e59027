"""Orders from which the search for blocks starts."""

from collections.abc import Sequence

import numpy as np

from secateur.sparsity.pivoting.block_sums import Matrix, order_sizes


def start_orders(
    matrices: Sequence[Matrix], fixed: frozenset[str], number: int, draws: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the orders of a start: unchanged, similar units adjacent, units by total weight, then random ones."""
    orders = {}
    for name, size in order_sizes(matrices).items():
        if number == 0 or name in fixed:
            orders[name] = np.arange(size)
        elif number == 1:
            orders[name] = _spectral_order(name, matrices)
        elif number == 2:
            rows = sum((matrix.values.sum(1) for matrix in matrices if matrix.rows == name), np.zeros(size))
            columns = sum((matrix.values.sum(0) for matrix in matrices if matrix.columns == name), np.zeros(size))
            orders[name] = np.argsort(-(rows + columns), kind="stable")
        else:
            orders[name] = draws.permutation(size)
    return orders


def _spectral_order(name: str, matrices: Sequence[Matrix]) -> np.ndarray:
    """Return an order in which similar units are adjacent, by the second singular vector (Dhillon 2001)."""
    adjacent = [matrix.values for matrix in matrices if matrix.rows == name]
    adjacent += [matrix.values.T for matrix in matrices if matrix.columns == name and matrix.rows != name]
    weights = np.concatenate(adjacent, 1)  # (units, inputs and outputs)
    scaled_weights = weights / np.sqrt(np.outer(weights.sum(1) + 1e-12, weights.sum(0) + 1e-12))
    left_vectors, _, _ = np.linalg.svd(scaled_weights, full_matrices=False)
    order: np.ndarray = np.argsort(left_vectors[:, min(1, left_vectors.shape[1] - 1)], kind="stable")
    return order
