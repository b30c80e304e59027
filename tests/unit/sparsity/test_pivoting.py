"""Matrix pivoting: the search on matrices whose answer is known, folded orders, packed blocks, gathers if needed."""

import copy
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secateur as sc
from expected_warnings import unread_targets
from secateur.graph.parametrizations import bake_parametrizations
from secateur.sparsity import load_fast
from secateur.sparsity.packed_layers.block_sparse import BlockSparseLinear
from secateur.sparsity.packed_layers.numba_linear import LoopedLinear
from secateur.sparsity.packed_layers.tiles import TiledConvolution, TiledLinear
from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.order_steps import improved_order, swap_gains
from secateur.sparsity.pivoting.orders import fold_orders
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.pivot_matrices import pivot_matrices
from secateur.sparsity.pivoting.result import load_pivoted
from secateur.sparsity.pivoting.search import align_orders, pivot_obliviously
from zoo import ZOO, grow


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
def test_no_step_loses_mass(seed: int, high: int, wide: int) -> None:
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


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"head width", "experts", "routed"}))
def test_folded_orders_leave_every_network_as_it_was(name: str) -> None:
    """Or it is refused, and nothing is changed: channels that are shuffled by place depend on their order."""
    model, example = grow(name)
    network = sc.trace(model, example)
    model, batch = bake_parametrizations(model), network.example
    with torch.no_grad():
        before = _leaves(model(*batch.args, **batch.kwargs))
    draws = np.random.default_rng(0)
    orders = {group.name: draws.permutation(group.size) for group in network.groups}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        fold_orders(model, network, orders)
    except sc.SecateurError as refusal:
        assert "depends on the order" in str(refusal)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
        return
    with torch.no_grad():
        after = _leaves(model(*batch.args, **batch.kwargs))
    for a, b in zip(after, before, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-3, atol=2e-2 if b.dtype != torch.float32 else 1e-4)


def _leaves(output: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"head width", "experts", "routed"}))
@unread_targets
def test_every_network_can_be_pivoted_or_says_why_not(name: str) -> None:
    model, example = grow(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if name == "local responses":
        with pytest.raises(sc.SecateurError, match="depends on the order of its units"):
            pivot(model, example, 0.5, shape=(2, 2), skip=(), starts=1)
    else:
        pivoted = pivot(model, example, 0.5, shape=(2, 2), skip=(), starts=1)
        packed, kernels = pivoted.packed(pivoted.network.example)
        assert set(kernels) == set(pivoted.layers)
        batch = pivoted.network.example
        with torch.no_grad():
            pairs = zip(*(_leaves(m(*batch.args, **batch.kwargs)) for m in (packed, pivoted.model)), strict=True)
        assert all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


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


def test_weights_that_are_nan_are_refused_by_name() -> None:
    model = Mlp()
    with torch.no_grad():
        model.b.weight[0, 0] = torch.inf
    with pytest.raises(sc.SecateurError, match=r"b\.weight has 1 entries that are NaN or infinite"):
        pivot(model, torch.randn(2, 40), 0.5)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(40, 36), nn.Linear(36, 30, bias=False), nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize("maker", [TiledLinear, LoopedLinear, BlockSparseLinear])
@pytest.mark.parametrize("gathers", [False, True])
def test_packed_blocks_compute_what_the_dense_layer_does(maker: Any, gathers: bool) -> None:
    """Also where blocks do not divide the matrix, and where a block row has none."""
    torch.manual_seed(0)
    shape = (8, 8) if maker is BlockSparseLinear else (4, 8)
    blocks = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]]).bool()
    rows = 5 * shape[0] - 1
    dense = nn.Linear(22, rows)
    mask = blocks.repeat_interleave(shape[0], 0).repeat_interleave(8, 1)[:rows, :22]
    gather = torch.randperm(22) if gathers else None
    placed = dense.weight.detach() * mask
    with torch.no_grad():
        dense.weight.copy_(placed if gather is None else torch.zeros_like(placed).index_copy(1, gather, placed))
    layer = maker(dense, placed, blocks, shape, gather)
    for x in (torch.randn(7, 22), torch.randn(2, 3, 22), torch.randn(33, 22), torch.randn(0, 22)):
        assert torch.allclose(copy.deepcopy(layer)(x), dense(x), atol=1e-5)


@pytest.fixture
def looped() -> tuple[nn.Linear, LoopedLinear]:
    torch.manual_seed(0)
    blocks = torch.tensor([[1, 0], [1, 1]]).bool()
    dense = nn.Linear(16, 8, bias=False)
    with torch.no_grad():
        dense.weight.mul_(blocks.repeat_interleave(4, 0).repeat_interleave(8, 1))
    return dense, LoopedLinear(dense, dense.weight, blocks, (4, 8), None)


def test_compiled_loops_hold_on_to_no_old_weights(looped: tuple[nn.Linear, LoopedLinear]) -> None:
    dense, compiled = looped
    x = torch.randn(3, 16)
    before = compiled(x)
    again = pickle.loads(pickle.dumps(compiled))
    assert torch.equal(again(x), before)
    twice = {name: 2 * value if value.is_floating_point() else value for name, value in compiled.state_dict().items()}
    for assign in (False, True):
        again.load_state_dict(twice, assign=assign)
        assert torch.allclose(again(x), 2 * dense(x), atol=1e-5)
    assert torch.allclose(compiled.double()(x.double()).float(), dense(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace.*is deprecated:DeprecationWarning")
def test_compiled_loops_pass_on_nan_gradients_and_exports(looped: tuple[nn.Linear, LoopedLinear]) -> None:
    dense, compiled = looped
    x = torch.randn(20, 16)
    x[0, 0] = torch.nan
    for batch in (x, x[:2]):  # either loop
        assert compiled(batch)[0].isnan().all() and compiled(batch)[1:].isfinite().all()
    x = torch.randn(3, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(compiled(x).sum(), x)
    assert torch.allclose(gradient, dense.weight.sum(0).expand(3, -1), atol=1e-5)
    traced = torch.jit.trace(compiled, torch.randn(3, 16))
    assert torch.allclose(traced(x.detach()), dense(x), atol=1e-5)
    compiled.requires_grad_(True)  # as whoever trains on does
    compiled(x.detach()).sum().backward()
    assert compiled.weight.grad is not None and bool(compiled.weight.grad.any())
    with torch.no_grad():
        assert torch.allclose(compiled(x), dense(x), atol=1e-5)
    exported = torch.export.export(compiled, (torch.randn(3, 16),)).module()
    assert torch.allclose(exported(x.detach()), dense(x), atol=1e-5)


def test_blocks_that_the_loops_do_not_do_are_left_to_others() -> None:
    dense, blocks = nn.Linear(12, 4), torch.ones(1, 2).bool()
    for layer, shape in ((dense, (4, 6)), (nn.Linear(16, 4).double(), (4, 8))):
        with pytest.raises(NotImplementedError, match="blocks of"):
            LoopedLinear(layer, layer.weight, blocks, shape, None)


def test_without_numba_the_loops_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.sparsity.packed_layers.numba_linear.find_spec", lambda name: None)
    model, x = Mlp().eval(), torch.randn(6, 40)
    pivoted = pivot(model, x, 0.5, shape=(4, 8))
    small, chosen = pivoted.packed(x)
    assert set(chosen.values()) <= {"dense", "tiles"}
    assert torch.allclose(small(x), pivoted.model(x), atol=1e-5)


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_packed_convolutions_compute_what_the_dense_ones_do(kind: Any, bias: bool, gathers: bool) -> None:
    torch.manual_seed(0)
    blocks = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]]).bool()
    dense = kind(11, 7, 3, stride=2, padding=1, dilation=2, bias=bias, padding_mode="reflect")
    mask = blocks.repeat_interleave(2, 0).repeat_interleave(4, 1)[:7, :11]
    gather = torch.randperm(11) if gathers else None
    placed = dense.weight.detach() * mask.view(7, 11, *(1 for _ in dense.kernel_size))
    with torch.no_grad():
        dense.weight.copy_(placed if gather is None else torch.zeros_like(placed).index_copy(1, gather, placed))
    layer = TiledConvolution(dense, placed, blocks, (2, 4), gather)
    space = (9,) * len(dense.kernel_size)
    for x in (torch.randn(2, 11, *space), torch.randn(11, *space)):
        assert torch.allclose(layer(x), dense(x), atol=1e-5)


def test_zeros_outside_of_the_blocks_and_the_rest_as_it_was() -> None:
    model, x = Mlp().eval(), torch.randn(6, 40)
    pivoted = pivot(model, x, 1.0, shape=(6, 6))
    assert torch.allclose(pivoted.model(x), model(x), atol=1e-5)  # density 1: another order, nothing else
    half = pivot(model, x, 0.5, shape=(6, 6))
    for name, layer in half.layers.items():
        weight = half.model.get_parameter(name)
        ordered = weight if layer.gather is None else weight[:, layer.gather]
        mask = layer.blocks.repeat_interleave(6, 0).repeat_interleave(6, 1)[: weight.shape[0], : weight.shape[1]]
        assert float(ordered[~mask].abs().sum()) == 0 and bool((ordered[mask] != 0).all())
        assert float(mask.double().mean()) <= 0.5
    assert half.layers["a.weight"].gather is not None and half.layers["b.weight"].gather is None
    assert type(half.model) is Mlp and "no gather" in str(half)


def test_inputs_that_one_block_holds_need_no_gather() -> None:
    """A stem of one input, and one of three channels in blocks of four: no order of theirs holds more."""
    for channels, shape in ((1, (4, 1)), (3, (4, 4))):
        model = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        pivoted = pivot(model.eval(), torch.randn(2, channels, 9, 9), 0.5, shape=shape)
        assert pivoted.layers["0.weight"].gather is None and "one gather" not in str(pivoted)


def test_packed_networks_compute_the_same_and_say_which_kernel_they_got() -> None:
    x = torch.randn(9, 40)
    pivoted = pivot(Mlp().eval(), x, 0.3, shape=(6, 6), balanced=True)
    small, chosen = pivoted.packed(x)
    assert set(chosen) == {"a.weight", "b.weight"} and set(chosen.values()) <= {"dense", "tiles", "bsr", "loops"}
    assert torch.allclose(small(x), pivoted.model(x), atol=1e-5)
    assert len({int(row.sum()) for row in pivoted.layers["b.weight"].blocks}) == 1


def test_rounds_and_training_keep_zeros(tmp_path: Path) -> None:
    x, counts = torch.randn(16, 40), []

    def fit(model: nn.Module) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        counts.append(int((model.b.weight != 0).sum()))

    pivoted = pivot(Mlp(), x, 0.25, shape=(6, 6), rounds=2, fit=fit)
    assert counts[0] == pytest.approx(0.5 * 1080, rel=0.1) and counts[1] <= 0.25 * 1080
    assert int((pivoted.model.b.weight != 0).sum()) == counts[1]
    pivoted.save(tmp_path)
    assert torch.equal(sc.load(Mlp(), tmp_path)(x), pivoted.model(x))
    assert torch.allclose(load_fast(Mlp(), tmp_path)(x), pivoted.model(x), atol=1e-5)
    again = load_pivoted(Mlp(), tmp_path, x[:2])
    assert torch.equal(again.model(x), pivoted.model(x))
    assert torch.allclose(again.packed(x)[0](x), pivoted.model(x), atol=1e-5)
    written = (tmp_path / "pivot.json").read_text()
    for broken in (written[:-9], written.replace("1", "0", 3)):
        (tmp_path / "pivot.json").write_text(broken)
        fresh = Mlp()
        before = fresh.a.weight.clone()
        with pytest.raises(sc.SecateurError, match=r"cut off or damaged|checksum|version"):
            load_pivoted(fresh, tmp_path, x[:2])
        assert torch.equal(fresh.a.weight, before)


def test_pivot_takes_a_model_and_data_and_the_report_counts_what_is_left() -> None:
    x, labels = torch.randn(32, 40), torch.arange(32) % 5
    dense = Mlp().eval()
    result = pivot(dense, [(x, labels)], 0.5, shape=(6, 6), tuning_steps=4, rounds=2, progress=False)
    zeros = sum(int((result.model.get_parameter(name) == 0).sum()) for name in result.layers)
    report = result.report
    assert report.pruned.cost.params == report.dense.cost.params - zeros
    assert report.pruned.cost.macs == 40 * 36 + 36 * 30 + 30 * 5 - zeros
    assert report.dense.accuracy is not None and "local optimum of the search" in str(report)
    assert set(report.sparsity.layers) == {"a.weight", "b.weight"}
    with pytest.raises(sc.SecateurError, match="are both given"):
        pivot(dense, x, 0.5, fit=lambda model: None, tuning_steps=3)


def test_what_will_go_fades_while_it_is_trained_and_blocks_hold_more() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 40)
    dense = Mlp()
    wanted = dense(x).detach()
    calls = []

    def fit(model: nn.Module) -> None:
        calls.append(1)
        optimizer = torch.optim.SGD(model.parameters(), 0.02)
        for _ in range(60):
            optimizer.zero_grad()
            (model(x) - wanted).square().mean().backward()
            optimizer.step()

    plain = pivot(dense, x[:2], 0.25, shape=(6, 6), fit=fit)
    faded = pivot(dense, x[:2], 0.25, shape=(6, 6), fit=fit, fade=0.95)
    assert len(calls) == 3
    for name, layer in faded.layers.items():
        assert layer.retained > plain.layers[name].retained + 0.4
    other = torch.nn.Linear(3, 3)  # the hook is gone, and other optimizers were never its business
    before = other.weight.detach().clone()
    torch.optim.SGD(other.parameters(), 0.1).step()
    assert torch.equal(before, other.weight)


def test_convolutions_are_pivoted_by_kernels() -> None:
    model, example = grow("residual")
    pivoted = pivot(model, example, 0.5, shape=(2, 2), skip=())
    for name, layer in pivoted.layers.items():
        weight = pivoted.model.get_parameter(name)
        kernels = weight.flatten(2).abs().sum(2) if weight.dim() > 2 else weight.abs()
        assert float((kernels > 0).double().mean()) <= 0.5 + 4 / kernels.numel(), name
        assert layer.retained > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density=0.0"),
        ({"density": 0.5, "shape": (0, 4)}, "blocks of one and more"),
        ({"density": 0.5, "rounds": 0}, "rounds=0"),
        ({"density": "half"}, "density='half'"),
        ({"density": 0.5, "shape": 4}, "pair of whole numbers"),
        ({"density": 0.5, "tuning_steps": -1}, "tuning_steps=-1"),
        ({"density": 0.5, "shpe": (4, 4)}, "`pivot` has no option 'shpe'; did you mean 'shape'"),
        ({"density": 0.5, "fade": 1.5}, "fade=1.5"),
        ({"density": 0.5, "skip": "z"}, "matches no layer"),
        ({"density": 0.5, "skip": "*"}, "no layer to pivot"),
    ],
)
def test_bad_input_of_pivoting(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        pivot(Mlp(), torch.randn(2, 40), **options)
