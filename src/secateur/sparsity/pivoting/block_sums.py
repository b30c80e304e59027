"""Sums of blocks of reordered matrices, and the choice of the blocks to keep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Orders = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Matrix:
    """The absolute values of one layer's weight.

    Args:
        name: the name of the layer.
        values: the absolute values (rows, columns).
        rows, columns: the names of the orders along them.
    """

    name: str
    values: np.ndarray
    rows: str
    columns: str

    def ordered(self, orders: Orders) -> np.ndarray:
        """Return the matrix with its rows and columns in these orders."""
        values: np.ndarray = self.values[orders[self.rows]][:, orders[self.columns]]
        return values


def order_sizes(matrices: Sequence[Matrix]) -> dict[str, int]:
    """Return the number of units of each order, by its name."""
    rows = {matrix.rows: matrix.values.shape[0] for matrix in matrices}
    return {**rows, **{matrix.columns: matrix.values.shape[1] for matrix in matrices}}


def block_sums(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the sum of each block of a matrix (block rows, block columns)."""
    by_rows = np.add.reduceat(values, np.arange(0, values.shape[0], shape[0]), axis=0)
    sums: np.ndarray = np.add.reduceat(by_rows, np.arange(0, values.shape[1], shape[1]), axis=1)
    return sums


def largest_blocks(values: np.ndarray, density: float, shape: tuple[int, int], balanced: bool) -> np.ndarray:
    """Return the blocks of the largest sums, as many as the density allows, but one at least.

    Args:
        values: the reordered matrix (rows, columns).
        density: the fraction of the matrix to keep.
        shape: the shape of a block (rows, columns).
        balanced: the same number of blocks in every block row.

    Returns:
        The blocks that are kept, as booleans (block rows, block columns).
    """
    sums = block_sums(values, shape)
    if balanced:
        count = max(1, math.floor(density * sums.shape[1] + 1e-9))
        block_columns = np.argsort(-sums, axis=1, kind="stable")[:, :count]
        kept = np.zeros(sums.shape, dtype=bool)
        np.put_along_axis(kept, block_columns, True, 1)
        return kept
    sizes = block_sums(np.ones_like(values), shape)
    order = np.argsort(-sums, axis=None, kind="stable")
    fits = np.cumsum(sizes.ravel()[order]) <= density * values.size + 1e-9
    fits[0] = True
    flat = np.zeros(sums.size, dtype=bool)
    flat[order[fits]] = True
    return flat.reshape(sums.shape)


def block_mass(matrix: Matrix, orders: Orders, blocks: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the absolute weight within some blocks of the reordered matrix."""
    return float(block_sums(matrix.ordered(orders), shape)[blocks].sum())
