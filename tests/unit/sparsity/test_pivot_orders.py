"""Orders of rows and columns: hidden blocks are found, and no step loses mass."""

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.order_steps import improved_order, swap_gains
from secateur.sparsity.pivoting.pivot_matrices import pivot_matrices
from secateur.sparsity.pivoting.search import align_orders, pivot_obliviously


def hidden_blocks(size: int, block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of a few dense blocks, its rows and columns shuffled, and the values that the blocks hold."""
    draws = np.random.default_rng(seed)
    dense = 0.01 * draws.random((size, size))
    for number in range(size // block):
        dense[number * block : (number + 1) * block, number * block : (number + 1) * block] += 1
    return dense[draws.permutation(size)][:, draws.permutation(size)], dense


@pytest.mark.parametrize("seed", range(4))
def test_hidden_blocks_are_found(seed: int) -> None:
    values, dense = hidden_blocks(24, 6, seed)
    search_result = pivot_matrices([Matrix("a", values, "r", "c")], 0.25, (6, 6), starts=8)
    plain = align_orders([Matrix("a", values, "r", "c")], 0.25, (6, 6))
    assert search_result.retained["a"] > 0.9 * pivot_obliviously(values, 0.25) > plain.retained["a"]
    ordered = values[search_result.orders["r"]][:, search_result.orders["c"]]
    mask = np.kron(search_result.blocks["a"], np.ones((6, 6))) > 0
    assert ordered[mask].sum() / values.sum() == pytest.approx(search_result.retained["a"])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 17), st.integers(2, 17), st.integers(1, 5), st.integers(1, 5), st.floats(0.05, 1.0), st.booleans()
)
def test_the_search_is_never_below_aligned_nor_above_oblivious(
    rows: int, columns: int, high: int, wide: int, density: float, balanced: bool
) -> None:
    values = np.random.default_rng(rows * 31 + columns).random((rows, columns))
    matrix = [Matrix("a", values, "r", "c")]
    search_result, plain = (f(matrix, density, (high, wide), balanced) for f in (pivot_matrices, align_orders))
    share = _share(search_result.blocks["a"], (rows, columns), (high, wide))
    assert sorted(search_result.orders["r"]) == list(range(rows)) and sorted(search_result.orders["c"]) == list(
        range(columns)
    )
    assert search_result.retained["a"] >= plain.retained["a"] - 1e-9
    assert search_result.retained["a"] <= pivot_obliviously(values, share) + 1e-9
    if not balanced:
        assert share <= density + 1e-9 or search_result.blocks["a"].sum() == 1
    else:
        assert len(set(search_result.blocks["a"].sum(1))) == 1


def shared_orders(size: int, seed: int) -> list[Matrix]:
    """A stream of units: layers from it into itself, from elsewhere into it, and from it to elsewhere."""
    draws = np.random.default_rng(seed)
    return [
        Matrix("within", draws.random((size, size)) ** 2, "stream", "stream"),
        Matrix("into", draws.random((size, size + 1)), "stream", "inner"),
        Matrix("from", draws.random((size - 1, size)), "outer", "stream"),
    ]


def held_by_hand(matrices: list[Matrix], orders: Any, blocks: Any, shape: tuple[int, int]) -> float:
    """Return the weight in the blocks, summed entry by entry."""
    return sum(
        float(matrix.values[orders[matrix.rows][i], orders[matrix.columns][j]])
        for matrix in matrices
        for i, j in itertools.product(*map(range, matrix.values.shape))
        if blocks[matrix.name][i // shape[0], j // shape[1]]
    )


@pytest.mark.parametrize("seed", range(3))
def test_gains_of_swaps_are_those_of_the_true_mass(seed: int) -> None:
    matrices, shape = shared_orders(6, seed), (2, 3)
    draws = np.random.default_rng(seed + 10)
    orders = {name: draws.permutation(size) for name, size in (("stream", 6), ("inner", 7), ("outer", 5))}
    grids = {"within": (3, 2), "into": (3, 3), "from": (3, 2)}
    blocks = {name: draws.random(grid) < 0.5 for name, grid in grids.items()}
    before = held_by_hand(matrices, orders, blocks, shape)
    for name, order in orders.items():
        gains = swap_gains(name, matrices, orders, blocks, shape)
        for p, q in itertools.product(range(len(order)), repeat=2):
            swapped = order.copy()
            swapped[[p, q]] = swapped[[q, p]]
            after = held_by_hand(matrices, {**orders, name: swapped}, blocks, shape)
            assert gains[p, q] == pytest.approx(after - before, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 3))
def test_no_step_of_an_order_lowers_the_retained_mass(seed: int, high: int, wide: int) -> None:
    """Also where the rows and the columns of a layer share one order, of which assignment is a linearisation."""
    matrices, shape = shared_orders(7, seed), (high, wide)
    draws = np.random.default_rng(seed)
    orders = {name: draws.permutation(size) for name, size in (("stream", 7), ("inner", 8), ("outer", 6))}
    grids = {matrix.name: [-(-n // s) for n, s in zip(matrix.values.shape, shape, strict=True)] for matrix in matrices}
    blocks = {name: draws.random(grid) < 0.4 for name, grid in grids.items()}
    mass = held_by_hand(matrices, orders, blocks, shape)
    for name in orders:
        orders[name] = improved_order(name, matrices, orders, blocks, shape)
        before, mass = mass, held_by_hand(matrices, orders, blocks, shape)
        assert mass >= before - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_what_is_called_locally_optimal_is(seed: int) -> None:
    """By brute force: no other blocks, no swap, and no other order of one axis alone holds more."""
    matrices, shape = shared_orders(4, seed), (2, 2)
    search_result = pivot_matrices(matrices, 0.5, shape)
    assert search_result.is_locally_optimal
    mass = held_by_hand(matrices, search_result.orders, search_result.blocks, shape)
    total = sum(float(matrix.values.sum()) for matrix in matrices)
    assert mass == pytest.approx(sum(search_result.retained[m.name] * float(m.values.sum()) for m in matrices))
    for name in ("inner", "outer"):
        for order in itertools.permutations(range(len(search_result.orders[name]))):
            other = held_by_hand(matrices, {**search_result.orders, name: np.array(order)}, search_result.blocks, shape)
            assert other <= mass + 1e-9 * total
    for p, q in itertools.combinations(range(4), 2):
        swapped = search_result.orders["stream"].copy()
        swapped[[p, q]] = swapped[[q, p]]
        assert (
            held_by_hand(matrices, {**search_result.orders, "stream": swapped}, search_result.blocks, shape)
            <= mass + 1e-9 * total
        )
    for kept in itertools.combinations(range(4), 2):  # two of the four blocks of the layer within the stream
        blocks = np.isin(np.arange(4), kept).reshape(2, 2)
        assert (
            held_by_hand(matrices, search_result.orders, {**search_result.blocks, "within": blocks}, shape)
            <= mass + 1e-9 * total
        )
    best = max(  # the best of all orders of the stream, alone: the search comes near it
        held_by_hand(
            matrices[:1], {"stream": np.array(order)}, {"within": np.isin(np.arange(4), kept).reshape(2, 2)}, shape
        )
        for order in itertools.permutations(range(4))
        for kept in itertools.combinations(range(4), 2)
    )
    alone = pivot_matrices(matrices[:1], 0.5, shape)
    assert alone.retained["within"] * float(matrices[0].values.sum()) >= 0.95 * best


def _share(blocks: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> float:
    mask = np.kron(blocks, np.ones(shape))[: size[0], : size[1]]
    return float(mask.mean())


def test_an_order_that_two_layers_share_is_one() -> None:
    """The order with the largest gain for both is taken: it orders the rows of one and the columns of the other."""
    one, _ = hidden_blocks(16, 4, 0)
    order = np.random.default_rng(5).permutation(16)
    search_result = pivot_matrices(
        [Matrix("a", one, "x", "h"), Matrix("b", one[:, order].T, "h2", "x")], 0.25, (4, 4), starts=8
    )
    assert set(search_result.orders) == {"x", "h", "h2"} and min(search_result.retained.values()) > 0.85


def test_the_search_does_not_depend_on_the_process() -> None:
    """Names are hashed anew in every process; orders must not go by that."""
    code = (
        "import numpy as np; from secateur.sparsity.pivoting.pivot_matrices import pivot_matrices;"
        "from secateur.sparsity.pivoting.block_sums import Matrix;"
        "v = [np.random.default_rng(i).random((12, 12)) for i in range(3)];"
        "m = [Matrix(n, v[i], n, 'abcd'[i + 1]) for i, n in enumerate('abc')];"
        "print({k: list(map(int, o)) for k, o in pivot_matrices(m, 0.3, (3, 3)).orders.items()})"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "5")
    }
    assert len(outputs) == 1
