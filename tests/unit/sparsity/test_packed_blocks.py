"""Packed blocks compute what the dense layers do."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from pivoted_networks import PivotedLayers
from secateur.sparsity.packed_layers.block_sparse import BlockSparseLinear
from secateur.sparsity.packed_layers.numba_linear import LoopedLinear
from secateur.sparsity.packed_layers.tiles import TiledConvolution, TiledLinear
from secateur.sparsity.pivoting.pivot import pivot


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


def test_copies_of_compiled_loops_hold_no_arrays_of_the_original(looped: tuple[nn.Linear, LoopedLinear]) -> None:
    """Addresses of memory mean something else in another process."""
    _, loops = looped
    with torch.no_grad():
        loops(torch.randn(2, 16))
    assert loops._arrays_at is not None
    assert loops.__getstate__()["_arrays_at"] is None
    assert copy.deepcopy(loops)._arrays_at is None


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
    model, x = PivotedLayers().eval(), torch.randn(6, 40)
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


def test_inputs_that_one_block_holds_need_no_gather() -> None:
    """A stem of one input, and one of three channels in blocks of four: no order of theirs holds more."""
    for channels, shape in ((1, (4, 1)), (3, (4, 4))):
        model = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        pivoted = pivot(model.eval(), torch.randn(2, channels, 9, 9), 0.5, shape=shape)
        assert pivoted.layers["0.weight"].gather is None and "one gather" not in str(pivoted)
