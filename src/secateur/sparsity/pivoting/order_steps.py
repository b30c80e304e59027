"""Steps that improve one order while all other orders and the blocks are fixed."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from secateur.sparsity.pivoting.block_sums import Matrix, Orders

LEAST_GAIN = 1e-9  # of the whole mass: below, a swap gains nothing but rounding


def improved_order(
    name: str, matrices: Sequence[Matrix], orders: Orders, blocks: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """Return an order that retains at least as much as the present one.

    Where no matrix has the order along both axes, it is the best there is, by linear assignment. Where one has (a
    layer from a residual stream into the same stream), the mass is quadratic in the order: the assignment is of its
    linearisation, so it is used only if it retains more, and pairs of units are swapped, the best first, until no swap
    gains.
    """
    new_order = assigned_order(name, matrices, orders, blocks, shape)
    if not any(matrix.rows == matrix.columns == name for matrix in matrices):
        return new_order
    start = orders[name]
    if _mass(name, new_order, matrices, orders, blocks, shape) > _mass(name, start, matrices, orders, blocks, shape):
        start = new_order
    return _swap_pairs(name, start, matrices, orders, blocks, shape)


def assigned_order(
    name: str, matrices: Sequence[Matrix], orders: Orders, blocks: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """Return the order by linear assignment, from the mass that each unit would retain at each position."""
    from scipy.optimize import linear_sum_assignment

    size = len(orders[name])
    kept = np.zeros((size, size))  # (units, positions)
    for values, columns, turned_blocks, turned_shape in _uses(name, matrices, orders, blocks, shape):
        kept += _kept_mass(values[:, columns], turned_blocks, turned_shape)
    units, positions = linear_sum_assignment(kept, maximize=True)
    order = np.empty(size, dtype=np.int64)
    order[positions] = units
    return order


def _uses(
    name: str, matrices: Sequence[Matrix], orders: Orders, blocks: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]]:
    """Yield each matrix with the order along its rows, transposed if needed: values, the other order, blocks, shape."""
    for matrix in matrices:
        if matrix.rows == name:
            yield matrix.values, orders[matrix.columns], blocks[matrix.name], shape
        if matrix.columns == name:
            yield matrix.values.T, orders[matrix.rows], blocks[matrix.name].T, shape[::-1]


def _kept_mass(values: np.ndarray, blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mass that each row (its columns in order) would retain at each position (rows, positions)."""
    sums = np.add.reduceat(values, np.arange(0, values.shape[1], shape[1]), axis=1)  # (rows, block columns)
    at_block = sums @ blocks.T  # (rows, block rows)
    kept: np.ndarray = at_block[:, np.arange(len(values)) // shape[0]]
    return kept


def _mass(
    name: str,
    order: np.ndarray,
    matrices: Sequence[Matrix],
    orders: Orders,
    blocks: Mapping[str, np.ndarray],
    shape: tuple[int, int],
) -> float:
    """Return the mass in the blocks of all matrices that have the order."""
    new_orders = {**orders, name: order}
    return sum(
        float(matrix.ordered(new_orders)[_inside(blocks[matrix.name], matrix.values.shape, shape)].sum())
        for matrix in matrices
        if name in (matrix.rows, matrix.columns)
    )


def _inside(blocks: np.ndarray, size: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    """Return the entries of a matrix that lie in blocks (rows, columns)."""
    is_inside: np.ndarray = blocks[np.arange(size[0]) // shape[0]][:, np.arange(size[1]) // shape[1]]
    return is_inside


def _swap_pairs(
    name: str,
    order: np.ndarray,
    matrices: Sequence[Matrix],
    orders: Orders,
    blocks: Mapping[str, np.ndarray],
    shape: tuple[int, int],
) -> np.ndarray:
    """Return the order after the best swaps of two units, one after another, until none gains."""
    order = order.copy()
    total = sum(float(matrix.values.sum()) for matrix in matrices)
    while True:
        gains = swap_gains(name, matrices, {**orders, name: order}, blocks, shape)
        first, second = np.unravel_index(int(gains.argmax()), gains.shape)
        if gains[first, second] <= LEAST_GAIN * total:
            return order
        order[[first, second]] = order[[second, first]]


def swap_gains(
    name: str, matrices: Sequence[Matrix], orders: Orders, blocks: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """Return the gain of mass in blocks if the units at two positions are swapped (positions, positions)."""
    size = len(orders[name])
    gains = np.zeros((size, size))
    for matrix in matrices:
        ordered_values, block_mask = matrix.ordered(orders), blocks[matrix.name]
        if matrix.rows == name:
            gains += _row_gains(_kept_mass(ordered_values, block_mask, shape))
        if matrix.columns == name:
            gains += _row_gains(_kept_mass(ordered_values.T, block_mask.T, shape[::-1]))
        if matrix.rows == matrix.columns == name:
            gains += _corner_gains(ordered_values, _inside(block_mask, ordered_values.shape, shape).astype(float))
    return gains


def _row_gains(kept: np.ndarray) -> np.ndarray:
    """Return the gain of swapped rows, from the mass of each position's row at each position (positions, positions)."""
    present = kept.diagonal()
    gains: np.ndarray = kept + kept.T - present[:, None] - present[None]
    return gains


def _corner_gains(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the gain of swapping both rows and columns beyond the sum of both, at the four entries moved twice.

    With p and q the positions, `values` the ordered matrix V and `inside` the kept entries K, the entries (p, p),
    (q, q), (p, q), (q, p) end at (q, q), (p, p), (q, p), (p, q).
    """
    v, k = values, inside
    v_p, v_q = v.diagonal()[:, None], v.diagonal()[None]  # V[p, p] and V[q, q] at (p, q)
    k_p, k_q = k.diagonal()[:, None], k.diagonal()[None]
    v_pq, v_qp, k_pq, k_qp = v, v.T, k, k.T
    moved = (v_q - v_p) * (k_p - k_q) + (v_qp - v_pq) * (k_pq - k_qp)
    rows = (v_qp - v_p) * (k_p - k_qp) + (v_q - v_pq) * (k_pq - k_q)
    columns = (v_pq - v_p) * (k_p - k_pq) + (v_q - v_qp) * (k_qp - k_q)
    gains: np.ndarray = moved - rows - columns
    return gains
