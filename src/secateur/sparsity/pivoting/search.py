"""Orders of rows and columns that bring the weight of several matrices into few dense blocks.

A reconstruction: the text of Sredojevic et al. 2017 was not readable. Two steps in turn, until neither gains: given the
orders, the blocks of the largest sums are kept; given the blocks, one order after another is assigned anew. An order
that several matrices share (the rows of one layer are the columns of the next; a residual stream's are many layers') is
found for all of them at once. Where a matrix has one order along both axes, assignment is a linearisation, whose steps
lose mass now and then but lead on: the best state is kept, and improved from there by steps that never lose any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.sparsity.pivoting.block_sums import (
    Matrix,
    block_mass,
    largest_blocks,
    order_sizes,
)
from secateur.sparsity.pivoting.order_steps import LEAST_GAIN, assigned_order, improved_order, swap_gains
from secateur.sparsity.pivoting.pivoted_matrices import PivotedMatrices

GAIN = 1e-3
CANDIDATES = 128  # pairs that are tried with blocks chosen anew
PATIENCE = 3  # rounds of linearised steps without a gain
MOST_ROUNDS = 100


@dataclass(frozen=True, eq=False)
class PivotSearch:
    """The problem of a search.

    Args:
        matrices: whose orders may be shared.
        density: the fraction of each matrix that stays.
        shape: of a block (rows, columns).
        balanced: the same number of blocks in every block row.
        fixed: orders that stay as they are.
    """

    matrices: Sequence[Matrix]
    density: float
    shape: tuple[int, int]
    balanced: bool = False
    fixed: frozenset[str] = frozenset()

    @property
    def total(self) -> float:
        """All absolute weight."""
        return max(sum(float(matrix.values.sum()) for matrix in self.matrices), 1e-300)

    def mass(self, orders: Mapping[str, np.ndarray], blocks: Mapping[str, np.ndarray]) -> float:
        """Return the fraction of the absolute weight within the blocks."""
        return sum(block_mass(matrix, orders, blocks[matrix.name], self.shape) for matrix in self.matrices) / self.total

    def best_blocks(self, orders: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the blocks of the largest sums, or those before where they retain more, as at ragged edges."""
        blocks = {}
        for matrix in self.matrices:
            block_mask = largest_blocks(matrix.ordered(orders), self.density, self.shape, self.balanced)
            kept = before.get(matrix.name, block_mask)
            masses = [block_mass(matrix, orders, candidate, self.shape) for candidate in (block_mask, kept)]
            blocks[matrix.name] = block_mask if masses[0] >= masses[1] else kept
        return blocks

    @property
    def _free(self) -> list[str]:
        """The orders that may change, in a fixed sequence: a set would go by the process's hashes."""
        return [name for name in order_sizes(self.matrices) if name not in self.fixed]

    @property
    def _quadratic(self) -> list[str]:
        """The free orders that some matrix has along both axes."""
        names_of_both = {matrix.rows for matrix in self.matrices if matrix.rows == matrix.columns}
        return [name for name in self._free if name in names_of_both]

    def explore(self, orders: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the orders and blocks of the best state on the way of assignment, until rounds hardly gain."""
        patience = PATIENCE if self._quadratic else 1
        orders, blocks = dict(orders), self.best_blocks(orders, {})
        best, best_mass, idle = (dict(orders), blocks), self.mass(orders, blocks), 0
        for _ in range(MOST_ROUNDS):
            for name in self._free:
                orders[name] = assigned_order(name, self.matrices, orders, blocks, self.shape)
            blocks = self.best_blocks(orders, blocks)
            mass = self.mass(orders, blocks)
            idle = 0 if mass >= best_mass + GAIN else idle + 1
            if mass > best_mass:
                best, best_mass = (dict(orders), blocks), mass
            if idle >= patience:
                break
        return best

    def _swap_anew(
        self, name: str, orders: dict[str, np.ndarray], blocks: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Swap pairs where that retains more with blocks chosen anew, those first that lose least with present ones."""
        mass = self.mass(orders, blocks)
        while True:
            gains = np.triu(swap_gains(name, self.matrices, orders, blocks, self.shape), 1)
            gains[np.tril_indices(len(gains))] = -np.inf
            for pair in np.argsort(-gains, axis=None, kind="stable")[:CANDIDATES]:
                positions = list(np.unravel_index(int(pair), gains.shape))
                order = orders[name].copy()
                order[positions] = order[positions[::-1]]
                new_orders = {**orders, name: order}
                new_blocks = self.best_blocks(new_orders, blocks)
                if self.mass(new_orders, new_blocks) > mass + LEAST_GAIN:
                    orders, blocks, mass = new_orders, new_blocks, self.mass(new_orders, new_blocks)
                    break
            else:
                return orders, blocks

    def climb(
        self, orders: Mapping[str, np.ndarray], least_gain: float, blocks: Mapping[str, np.ndarray] | None = None
    ) -> PivotedMatrices:
        """Take steps that lose nothing, until a round gains no more than `least_gain`."""
        orders, blocks = dict(orders), self.best_blocks(orders, blocks or {})
        mass, gain = self.mass(orders, blocks), np.inf
        for _ in range(MOST_ROUNDS):
            for name in self._free:
                orders[name] = improved_order(name, self.matrices, orders, blocks, self.shape)
            blocks = self.best_blocks(orders, blocks)
            for name in self._quadratic:
                orders, blocks = self._swap_anew(name, orders, blocks)
            mass_before, mass = mass, self.mass(orders, blocks)
            gain = mass - mass_before
            if gain <= least_gain:
                break
        retained_fractions = {
            matrix.name: block_mass(matrix, orders, blocks[matrix.name], self.shape)
            / max(float(matrix.values.sum()), 1e-300)
            for matrix in self.matrices
        }
        return PivotedMatrices(orders, blocks, self.shape, retained_fractions, gain <= LEAST_GAIN)


def align_orders(
    matrices: Sequence[Matrix], density: float, shape: tuple[int, int], balanced: bool = False
) -> PivotedMatrices:
    """Return the blocks of the largest sums, with every order unchanged."""
    orders = {name: np.arange(size) for name, size in order_sizes(matrices).items()}
    return PivotSearch(matrices, density, shape, balanced, frozenset(orders)).climb(orders, 0.0)


def pivot_obliviously(values: np.ndarray, density: float) -> float:
    """Return the fraction of the absolute weight that the largest weights of that density hold."""
    flat = np.sort(values, axis=None)[::-1]
    return float(flat[: round(density * flat.size)].sum() / max(flat.sum(), 1e-300))
