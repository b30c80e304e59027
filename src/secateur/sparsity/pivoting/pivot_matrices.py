"""The search for the orders and blocks of all matrices of a network, from several starts."""

from collections.abc import Sequence

import numpy as np

from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.order_steps import LEAST_GAIN
from secateur.sparsity.pivoting.pivoted_matrices import PivotedMatrices
from secateur.sparsity.pivoting.search import GAIN, PivotSearch
from secateur.sparsity.pivoting.starts import start_orders


def pivot_matrices(
    matrices: Sequence[Matrix],
    density: float,
    shape: tuple[int, int],
    balanced: bool = False,
    fixed: frozenset[str] = frozenset(),
    starts: int = 4,
    seed: int = 0,
) -> PivotedMatrices:
    """Return the orders and blocks that retain the most absolute weight, as far as the search goes.

    Args:
        matrices: whose orders may be shared.
        density: the fraction of each matrix that stays.
        shape: of a block (rows, columns).
        balanced: the same number of blocks in every block row, which makes kernels even.
        fixed: orders that stay as they are.
        starts: from the orders as they are, from units alike side by side, from units by their total weight, and then
            from random ones; each is followed until a round gains less than a thousandth, and the best one until a
            round gains nothing.
        seed: of the random ones.

    Examples:
        >>> rows, columns = np.arange(4)[:, None] % 2, np.arange(4) % 2
        >>> from secateur.sparsity.pivoting.search import align_orders
        >>> checkered = Matrix("a", (rows == columns) * 1.0, "rows", "columns")
        >>> pivot_matrices([checkered], 0.5, (2, 2)).retained, align_orders([checkered], 0.5, (2, 2)).retained
        ({'a': 1.0}, {'a': 0.5})
    """
    draws = np.random.default_rng(seed)
    search = PivotSearch(matrices, density, shape, balanced, fixed)
    states = [search.explore(start_orders(matrices, fixed, number, draws)) for number in range(starts)]
    climbs = [search.climb(orders, GAIN, blocks) for orders, blocks in states]
    best = max(climbs, key=lambda climb: search.mass(climb.orders, climb.blocks))
    return search.climb(best.orders, LEAST_GAIN, best.blocks)
