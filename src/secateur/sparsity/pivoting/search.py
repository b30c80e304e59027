"""Orders of rows and columns that bring the weight of several matrices into few dense blocks.

A reconstruction: the text of Sredojevic et al. 2017 was not readable. Two steps in turn, until neither gains: given the
orders, the blocks of the largest sums are kept; given the blocks, one order after another is the best there is, by
linear assignment of its units to positions. An order that several matrices share (the rows of one layer are the columns
of the next; a residual stream's are many layers') is found for all of them at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

GAIN = 1e-3
MOST_ROUNDS = 100


@dataclass(frozen=True, eq=False)
class Matrix:
    """The absolute values of one layer's weight.

    Args:
        name: the layer's.
        values: (rows, columns).
        rows, columns: the names of the orders along them.
    """

    name: str
    values: np.ndarray
    rows: str
    columns: str


@dataclass(frozen=True, eq=False)
class Pivoted:
    """Orders, and which blocks are kept.

    Args:
        orders: by name, for each position the unit that sits there.
        blocks: by layer, which blocks of the reordered matrix stay (block rows, block columns).
        shape: of a block.
        retained: the part of all absolute weight that lies in them, by layer.
    """

    orders: Mapping[str, np.ndarray]
    blocks: Mapping[str, np.ndarray]
    shape: tuple[int, int]
    retained: Mapping[str, float]


def aligned(matrices: Sequence[Matrix], density: float, shape: tuple[int, int], balanced: bool = False) -> Pivoted:
    """The blocks of the largest sums, with every order as it is."""
    orders = {name: np.arange(size) for name, size in _sizes(matrices).items()}
    blocks = {each.name: _largest(_sums(each, orders, shape), each, density, shape, balanced) for each in matrices}
    return Pivoted(orders, blocks, shape, _retained(matrices, orders, blocks, shape))


def pivoted(
    matrices: Sequence[Matrix],
    density: float,
    shape: tuple[int, int],
    balanced: bool = False,
    fixed: frozenset[str] = frozenset(),
    starts: int = 4,
    seed: int = 0,
) -> Pivoted:
    """Orders and blocks that retain the most absolute weight that the search finds.

    Args:
        matrices: whose orders may be shared.
        density: the fraction of each matrix that stays.
        shape: of a block (rows, columns).
        balanced: the same number of blocks in every block row, which makes kernels even.
        fixed: orders that stay as they are.
        starts: from the orders as they are, from units alike side by side, from units by their total weight, and then
            from random ones; the best result counts.
        seed: of the random ones.

    Example:
        >>> rows, columns = np.arange(4)[:, None] % 2, np.arange(4) % 2
        >>> checkered = Matrix("a", (rows == columns) * 1.0, "rows", "columns")
        >>> pivoted([checkered], 0.5, (2, 2)).retained, aligned([checkered], 0.5, (2, 2)).retained
        ({'a': 1.0}, {'a': 0.5})
    """
    draws = np.random.default_rng(seed)
    found = [
        _climbed(matrices, density, shape, balanced, fixed, _start(matrices, fixed, n, draws)) for n in range(starts)
    ]
    return max(found, key=lambda each: _mass(matrices, each.retained))


def oblivious(values: np.ndarray, density: float) -> float:
    """The part of the absolute weight that any weights of that density can hold."""
    flat = np.sort(values, axis=None)[::-1]
    return float(flat[: round(density * flat.size)].sum() / max(flat.sum(), 1e-300))


def _start(
    matrices: Sequence[Matrix], fixed: frozenset[str], number: int, draws: np.random.Generator
) -> dict[str, np.ndarray]:
    found = {}
    for name, size in _sizes(matrices).items():
        if number == 0 or name in fixed:
            found[name] = np.arange(size)
        elif number == 1:
            found[name] = _alike(name, matrices)
        elif number == 2:
            rows = sum((each.values.sum(1) for each in matrices if each.rows == name), np.zeros(size))
            columns = sum((each.values.sum(0) for each in matrices if each.columns == name), np.zeros(size))
            found[name] = np.argsort(-(rows + columns), kind="stable")
        else:
            found[name] = draws.permutation(size)
    return found


def _alike(name: str, matrices: Sequence[Matrix]) -> np.ndarray:
    """Units side by side whose weights lie in the same places: by the second singular vector (Dhillon 2001)."""
    own = [
        each.values if each.rows == name else each.values.T for each in matrices if name in (each.rows, each.columns)
    ]
    together = np.concatenate(own, 1)  # (units, all that they meet)
    scaled = together / np.sqrt(np.outer(together.sum(1) + 1e-12, together.sum(0) + 1e-12))
    left, _, _ = np.linalg.svd(scaled, full_matrices=False)
    found: np.ndarray = np.argsort(left[:, min(1, left.shape[1] - 1)], kind="stable")
    return found


def _climbed(
    matrices: Sequence[Matrix],
    density: float,
    shape: tuple[int, int],
    balanced: bool,
    fixed: frozenset[str],
    orders: dict[str, np.ndarray],
) -> Pivoted:
    """Both steps in turn until they gain less than a thousandth."""
    last = 0.0
    blocks: dict[str, np.ndarray] = {}
    for _ in range(MOST_ROUNDS):
        blocks = {m.name: _largest(_sums(m, orders, shape), m, density, shape, balanced) for m in matrices}
        for name in [name for name in orders if name not in fixed]:  # a set would go by the process's hashes
            orders[name] = _assigned(name, matrices, orders, blocks, shape)
        mass = _mass(matrices, _retained(matrices, orders, blocks, shape))
        if mass - last < GAIN:
            break
        last = mass
    blocks = {m.name: _largest(_sums(m, orders, shape), m, density, shape, balanced) for m in matrices}
    return Pivoted(dict(orders), blocks, shape, _retained(matrices, orders, blocks, shape))


def _assigned(
    name: str,
    matrices: Sequence[Matrix],
    orders: Mapping[str, np.ndarray],
    blocks: Mapping[str, np.ndarray],
    shape: tuple[int, int],
) -> np.ndarray:
    """The best order of that name, all others and the blocks as they are."""
    size = len(orders[name])
    kept = np.zeros((size, size))  # (units, positions): what a unit would keep there
    for each in matrices:
        if each.rows == name:
            kept += _kept(each.values, orders[each.columns], blocks[each.name], shape)
        if each.columns == name:
            kept += _kept(each.values.T, orders[each.rows], blocks[each.name].T, shape[::-1])
    units, positions = linear_sum_assignment(kept, maximize=True)
    order = np.empty(size, dtype=np.int64)
    order[positions] = units
    return order


def _kept(values: np.ndarray, columns: np.ndarray, blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """What each row would keep at each position. (rows, positions)"""
    sums = np.add.reduceat(values[:, columns], np.arange(0, values.shape[1], shape[1]), axis=1)  # (rows, block columns)
    at_block = sums @ blocks.T  # (rows, block rows)
    found: np.ndarray = at_block[:, np.arange(len(values)) // shape[0]]
    return found


def _sums(matrix: Matrix, orders: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The sum of each block of the reordered matrix. (block rows, block columns)"""
    ordered = matrix.values[orders[matrix.rows]][:, orders[matrix.columns]]
    by_rows = np.add.reduceat(ordered, np.arange(0, ordered.shape[0], shape[0]), axis=0)
    found: np.ndarray = np.add.reduceat(by_rows, np.arange(0, ordered.shape[1], shape[1]), axis=1)
    return found


def _largest(sums: np.ndarray, matrix: Matrix, density: float, shape: tuple[int, int], balanced: bool) -> np.ndarray:
    """The blocks of the largest sums, so many that the density is not passed, but one at least."""
    if balanced:
        count = max(1, math.floor(density * sums.shape[1] + 1e-9))
        chosen = np.argsort(-sums, axis=1, kind="stable")[:, :count]
        kept = np.zeros(sums.shape, dtype=bool)
        np.put_along_axis(kept, chosen, True, 1)
        return kept
    sizes = _sums(Matrix("", np.ones_like(matrix.values), "r", "c"), _identity(matrix), shape)
    order = np.argsort(-sums, axis=None, kind="stable")
    within = np.cumsum(sizes.ravel()[order]) <= density * matrix.values.size + 1e-9
    within[0] = True
    flat = np.zeros(sums.size, dtype=bool)
    flat[order[within]] = True
    return flat.reshape(sums.shape)


def _identity(matrix: Matrix) -> dict[str, np.ndarray]:
    rows, columns = matrix.values.shape
    return {"r": np.arange(rows), "c": np.arange(columns)}


def _sizes(matrices: Sequence[Matrix]) -> dict[str, int]:
    rows = {each.rows: each.values.shape[0] for each in matrices}
    return {**rows, **{each.columns: each.values.shape[1] for each in matrices}}


def _retained(
    matrices: Sequence[Matrix],
    orders: Mapping[str, np.ndarray],
    blocks: Mapping[str, np.ndarray],
    shape: tuple[int, int],
) -> dict[str, float]:
    return {
        each.name: float(_sums(each, orders, shape)[blocks[each.name]].sum() / max(each.values.sum(), 1e-300))
        for each in matrices
    }


def _mass(matrices: Sequence[Matrix], retained: Mapping[str, float]) -> float:
    """The part of all matrices' weight that is retained."""
    total = sum(float(each.values.sum()) for each in matrices)
    return sum(float(each.values.sum()) * retained[each.name] for each in matrices) / max(total, 1e-300)
