"""Blocks of one absolute value: the nearest ones, ADMM towards them, steps that keep them, and a file of their size."""

import copy
import hashlib
import io
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.sparsity import load_fast, unify
from secateur.sparsity.packed_layers.unified_kernels import unified_fast_network
from secateur.sparsity.packed_layers.unified_layers import SharedConvolution, SharedLinear
from secateur.sparsity.unification.blocks import (
    FREE,
    PRUNED,
    UNIFIED,
    Blocks,
    found_labels,
    labels_of,
    projected,
)
from secateur.sparsity.unification.codec import halved, load_compressed, save_compressed
from secateur.sparsity.unification.compressed_file import DIGEST
from secateur.sparsity.unification.result import count_blocks
from secateur.sparsity.unification.shapes import block_shapes
from secateur.sparsity.unification.unification import Unification


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_blocks_come_apart_and_together(rows: int, columns: int, high: int, wide: int) -> None:
    blocks, x = Blocks((rows, columns), (high, wide)), weight(rows, columns)
    assert torch.equal(blocks.join(blocks.cut(x)), x)
    assert int(blocks.sizes().sum()) == rows * columns and blocks.cut(x).shape == (blocks.count, high * wide)


def test_the_best_value_is_the_mean_of_the_absolute_ones() -> None:
    """And the signs stay; zero counts as plus. No other value or signs are nearer."""
    x = torch.tensor([[1.0, -3.0, 0.0, 2.0]])
    blocks = Blocks((1, 4), (1, 4))
    unified = projected(blocks, x, torch.tensor([UNIFIED]))
    assert unified.tolist() == [[1.5, -1.5, 1.5, 1.5]]
    least = float((unified - x).square().sum())
    for value, signs in itertools.product(torch.linspace(0, 3, 31).tolist(), itertools.product((1, -1), repeat=4)):
        assert float((value * torch.tensor(signs) - x).square().sum()) >= least - 1e-6
    assert least == pytest.approx(float(x.square().sum()) - float(x.abs().sum()) ** 2 / 4)


def test_the_weakest_blocks_go_and_the_evenest_of_the_others_are_unified() -> None:
    """By the sum of squares, and by the sum of squares about the mean absolute value; padding never counts."""
    x = torch.tensor([[0.1, 0.1, 5.0, -5.0, 1.0, 3.0, 0.2]])
    labels = labels_of(Blocks((1, 7), (1, 2)), x, 0.5, 0.25)
    assert labels.tolist() == [PRUNED, UNIFIED, FREE, PRUNED]
    everything = labels_of(Blocks((1, 7), (1, 2)), x, 0.0, 1.0)
    assert everything.tolist() == [UNIFIED] * 4
    assert projected(Blocks((1, 7), (1, 2)), x, everything)[0, 6] == x[0, 6]  # alone in its block: its own mean


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 7, 3)
        self.norm, self.third, self.fc = nn.BatchNorm2d(7), nn.Conv2d(7, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.third(F.relu(self.norm(self.second(F.relu(self.first(x)))))))
        return self.fc(x.mean((2, 3)))


def start(
    seed: int = 0, make: Any = torch.optim.Adam, **options: Any
) -> tuple[Net, torch.optim.Optimizer, Unification]:
    model = Net(seed)
    optimizer = make(model.parameters(), 0.01)
    return model, optimizer, Unification(model, optimizer, **{"every": 3, "shape": (2, 4), **options})


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        draws = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 1, 10, 10, generator=draws), torch.randint(0, 4, (8,), generator=draws)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_inner_layers_by_default_and_others_by_name() -> None:
    _, _, unification = start()
    assert [state.name for state in unification.layers] == ["second", "third"]
    assert [state.name for state in start(only="*", skip="f*")[2].layers] == ["second", "third"]
    deep = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    by_default = Unification(deep, torch.optim.SGD(deep.parameters(), 0.1))
    assert [state.name for state in by_default.layers] == ["2"]


def test_the_penalty_is_the_gradient_of_the_squared_norm() -> None:
    model, optimizer, unification = start(make=torch.optim.SGD, rho=0.3)
    state = unification.layers[0]
    state.dual.copy_(weight(*state.dual.shape, seed=3))
    before = model.second.weight.detach().clone().requires_grad_()
    (0.15 * (before - state.auxiliary + state.dual).square().sum()).backward()
    model.second.weight.grad = torch.zeros_like(model.second.weight)
    optimizer.step()
    assert torch.allclose(model.second.weight, before - 0.01 * before.grad, atol=1e-7)


def test_rounds_draw_the_weights_to_the_structure() -> None:
    """The residual falls far below what it was; with hardly any penalty it does not."""
    model, optimizer, unification = start(rho=0.1, every=25)
    first = dict(unification.residuals)
    steps(model, optimizer, 0, 200)
    assert all(residual < first[name] / 3 for name, residual in unification.residuals.items())
    weak_model, weak_optimizer, weak = start(rho=1e-6, growth=1.0, every=25)
    steps(weak_model, weak_optimizer, 0, 200)
    assert all(residual > unification.residuals[name] for name, residual in weak.residuals.items())


def test_the_multiplier_keeps_its_meaning_when_rho_grows() -> None:
    model, optimizer, unification = start(every=1, rho=0.1, growth=2.0)
    state = unification.layers[0]
    labels = state.labels
    w = state.weight.detach().clone()
    gap = state.dual + w - projected(state.blocks, w + state.dual, labels_of(state.blocks, w + state.dual, 0.5, 0.5))
    with torch.no_grad():
        unification._update()
    assert unification.rho == 0.2 and torch.allclose(state.dual, gap / 2) and len(labels) == state.blocks.count


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_hard_steps_keep_zeros_signs_and_one_magnitude(make: Any) -> None:
    model, optimizer, unification = start(make=make)
    steps(model, optimizer, 0, 5)
    unification.harden()
    labels = {state.name: state.labels.clone() for state in unification.layers}
    signs = {state.name: state.weight.detach().sign() for state in unification.layers}
    before = {state.name: state.weight.detach().clone() for state in unification.layers}
    steps(model, optimizer, 5, 20)
    for state in unification.layers:
        assert torch.equal(found_labels(state.blocks, state.weight), labels[state.name])
        unified = state.blocks.cut(state.weight.detach())[labels[state.name] == UNIFIED]
        unified_signs = state.blocks.cut(signs[state.name])[labels[state.name] == UNIFIED]
        assert torch.equal(unified.sign(), unified_signs)
        assert not torch.equal(state.weight.detach(), before[state.name])


def test_a_killed_training_goes_on_to_the_same_weights() -> None:
    for stop in (2, 7, 10):
        whole, optimizer, unification = start()
        first, other, before = start()
        for model, moved, trained in ((whole, optimizer, unification), (first, other, before)):
            steps(model, moved, 0, min(stop, 8))
            if stop > 8:
                trained.harden()
                steps(model, moved, 8, stop)
        saved = io.BytesIO()
        torch.save([first.state_dict(), other.state_dict(), before.state_dict()], saved)
        saved.seek(0)
        states = torch.load(saved, weights_only=True)
        resumed, third, after = start(seed=9)
        resumed.load_state_dict(states[0])
        third.load_state_dict(states[1])
        after.load_state_dict(states[2])
        for model, moved in ((whole, optimizer), (resumed, third)):
            steps(model, moved, stop, stop + 6)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruned": 0.7, "unified": 0.5}, "two fractions of at most 1"),
        ({"shape": (1, 1)}, "blocks of two weights or more"),
        ({"shape": 1}, "blocks of two weights or more"),
        ({"shape": "1x8"}, "blocks of two weights or more"),
        ({"rho_": 1.0}, "`Unification` has no option 'rho_'; did you mean 'rho'"),
        ({"shape": (2, 2, 1)}, "has 3 sides, but the weight of second has 4 axes"),
        ({"shape": {"nowhere": 8}}, "matches no layer to structure"),
        ({"rho": 0.0}, "rho above 0"),
        ({"only": "nowhere"}, "matches no layer"),
        ({"only": "second", "skip": "second"}, "no layer to structure"),
    ],
)
def test_bad_input_of_unification(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        start(**options)


def test_a_step_that_a_fused_optimizer_skips_counts_for_nothing() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    unification = Unification(model, optimizer, every=1)
    before = model.second.weight.detach().clone()
    model.second.weight.grad = torch.full_like(before, torch.inf)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert unification.steps == 0 and torch.equal(model.second.weight, before)
    with torch.no_grad():
        model.third.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(sc.SecateurError, match="third has 1 entries that are NaN"):
        Unification(model, optimizer)


def test_nan_stops_and_a_foreign_state_is_refused() -> None:
    model, optimizer, unification = start()
    (model(torch.randn(2, 1, 10, 10)).sum() * float("nan")).backward()
    with pytest.raises(sc.SecateurError, match="step 1 is NaN or infinite in second"):
        optimizer.step()
    with pytest.raises(sc.SecateurError, match="no such blocks as second"):
        unification.load_state_dict(start(shape=(1, 8))[2].state_dict())


SHAPES = {"second.weight": (2, 4), "third.weight": (2, 4)}


def structured(**options: Any) -> Net:
    model, optimizer, unification = start(**options)
    steps(model, optimizer, 0, 3)
    unification.harden()
    unification.release()
    return model.eval()


@pytest.mark.parametrize("half", [False, True])
def test_a_file_is_read_back_bit_for_bit(tmp_path: Path, half: bool) -> None:
    model = halved(structured()) if half else structured()
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = -0.0
    compressed = save_compressed(model, tmp_path / "model.blocks", SHAPES)
    loaded = load_compressed(Net(5), tmp_path / "model.blocks")
    for name, tensor in model.state_dict().items():
        again = loaded.state_dict()[name]
        assert torch.equal(again, tensor) and torch.equal(again.signbit(), tensor.signbit())
    assert compressed.bytes == (tmp_path / "model.blocks").stat().st_size < compressed.dense_bytes
    assert compressed.pruned + compressed.unified + compressed.free == 6 * 7 * 9 + 7 * 8 * 9
    assert "x smaller" in str(compressed)


def test_structure_pays_on_disk(tmp_path: Path) -> None:
    """More of it is a smaller file, and a dense network gains nothing but what its bytes repeat."""
    model = nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(3)))
    shapes = {f"{i}.weight": (1, 8) for i in range(3)}
    dense = save_compressed(model, tmp_path / "dense", shapes).bytes
    sizes = []
    for pruned, unified in ((0.5, 0.0), (0.5, 0.4), (0.7, 0.3)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        Unification(model, optimizer, pruned, unified, only="*").harden()
        sizes.append(save_compressed(model, tmp_path / "small", shapes).bytes)
    assert dense > 0.8 * 3 * 128 * 128 * 4
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < dense / 12


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.999])
def test_an_altered_or_cut_off_file_is_refused(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "model.blocks"
    save_compressed(structured(), path, SHAPES)
    raw = path.read_bytes()
    model = Net(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    at = int(fraction * len(raw))
    for broken in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
        path.write_bytes(broken)
        with pytest.raises(sc.SecateurError, match=r"not a file of blocks|checksum is wrong"):
            load_compressed(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_blocks_along_any_axes_are_those_that_are_counted_out(lengths: list[int], sides: list[int]) -> None:
    """Entry by entry: which block each weight falls into, and back."""
    x, shape = weight(*lengths), tuple(sides[: len(lengths)])
    blocks = Blocks(tuple(lengths), shape)
    expected: dict[tuple[int, ...], list[float]] = {}
    for index in itertools.product(*map(range, lengths)):
        expected.setdefault(tuple(at // side for at, side in zip(index, shape, strict=True)), []).append(
            float(x[index])
        )
    values = blocks.cut(x)
    assert len(values) == blocks.count == len(expected)
    for row, numbers, size in zip(values, (expected[key] for key in sorted(expected)), blocks.sizes(), strict=True):
        assert sorted(row[row != 0].tolist()) == pytest.approx(sorted(numbers)) and int(size) == len(numbers)
    assert torch.equal(blocks.join(values), x)


def test_each_layer_gets_the_shape_that_changes_it_least() -> None:
    """By brute force over the shapes of as many weights; structure along an axis is found."""
    torch.manual_seed(0)
    level = torch.rand(4, 1, 3, 3) + 0.5  # one absolute value for all input channels at each place
    along_channels = level.expand(4, 8, 3, 3) * torch.where(torch.rand(4, 8, 3, 3) < 0.5, -1, 1)
    weights = {"a": along_channels, "b": torch.randn(8, 16)}
    chosen = block_shapes(weights, 8, 0.0, 1.0)
    assert chosen["a"] == (1, 8, 1, 1)

    def error(shape: tuple[int, int]) -> float:
        values = weights["b"].reshape(8 // shape[0], shape[0], 16 // shape[1], shape[1]).transpose(1, 2).flatten(2)
        return float((values.abs() - values.abs().mean(2, keepdim=True)).square().sum())

    shapes = [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert chosen["b"] == min(shapes, key=error)
    mixed = block_shapes(weights, {"a": (2, 4, 1, 1), "b": 4}, 0.0, 1.0)
    assert mixed["a"] == (2, 4, 1, 1) and math.prod(mixed["b"]) == 4
    assert block_shapes({"b": weights["b"]}, (2, 4, 1, 1), 0.0, 1.0) == {"b": (2, 4)}


def test_the_first_layer_is_left_out_only_where_it_is_small_and_never_silently() -> None:
    deep, wide = Net(), nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(8, 2))
    for model, names, reason in ((deep, ["second", "third"], "it is the first"), (wide, ["0", "1"], None)):
        unification = Unification(model, torch.optim.SGD(model.parameters(), 0.1))
        assert [layer.name for layer in unification.layers] == names
        assert unification.left_out[list(dict(model.named_children()))[-1]].startswith("it is the last")
        assert reason is None or any(text.startswith(reason) for text in unification.left_out.values())
    assert "% of the weights" in str(unification.left_out)


def test_counts_of_blocks_are_those_of_the_weights() -> None:
    """Numbers to store and multiplications, counted by hand."""
    x = torch.tensor([[1.0, -1.0, 2.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]])
    count = count_blocks(x, (2, 2))  # blocks of 2 x 2: unified, free, pruned (one column)
    assert (count.free, count.unified, count.pruned) == (1, 1, 1)
    assert (count.free_weights, count.rows, count.remaining, count.weights) == (4, 2, 8, 10)


def test_unification_refuses_an_optimizer_of_another_model() -> None:
    model = Net()
    with pytest.raises(sc.SecateurError, match="does not hold second and 1 further weight"):
        Unification(model, torch.optim.SGD(Net().parameters(), 0.1))


def test_a_model_and_data_are_enough_and_the_report_counts_what_is_left(tmp_path: Path) -> None:
    x, model = torch.randn(32, 1, 10, 10), Net().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options: dict[str, Any] = {"shape": (2, 4, 1, 1), "soft_steps": 16, "tuning_steps": 4, "progress": False}
    result = unify(model, x, {"blocks": 0.5}, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    result.save(tmp_path)
    assert torch.equal(sc.load(Net(), tmp_path)(x), result.model.eval()(x))
    assert torch.allclose(load_fast(Net(), tmp_path)(x), result.model(x), atol=1e-5)
    assert (tmp_path / "model.blocks").stat().st_size == result.report.pruned.cost.bytes == result.compressed.bytes
    stored = sum(value.numel() for value in model.parameters())
    for name in ("second.weight", "third.weight"):
        numbers = result.model.get_parameter(name).detach()
        blocks = Blocks(tuple(numbers.shape), (2, 4, 1, 1)).cut(numbers)
        stored -= numbers.numel() - sum(len(set(block[block != 0].abs().tolist())) for block in blocks)
    assert result.report.pruned.cost.params == stored
    assert result.report.sparsity.ratios["parameters"] == pytest.approx(
        sum(value.numel() for value in model.parameters()) / stored
    )


def test_files_of_another_network_and_none_at_all(tmp_path: Path) -> None:
    save_compressed(structured(), tmp_path / "model.blocks", SHAPES)
    with pytest.raises(sc.SecateurError, match="which is no weight of the model"):
        save_compressed(Net(), tmp_path / "model.blocks", {"secund.weight": (1, 8)})
    with pytest.raises(sc.SecateurError, match="is of another network"):
        load_compressed(nn.Linear(2, 2), tmp_path / "model.blocks")
    with pytest.raises(sc.SecateurError, match="can't be read"):
        load_compressed(Net(), tmp_path / "nowhere")
    assert len(hashlib.sha256().digest()) == DIGEST


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_shared_magnitudes_compute_what_the_dense_layer_does(width: int, bias: bool) -> None:
    """Free, unified and pruned blocks; where runs do not divide the inputs; where nothing is free or all is gone."""
    torch.manual_seed(0)
    dense = nn.Linear(37, 20, bias=bias)
    blocks, weight = Blocks((20, 37), (1, width)), dense.weight.detach().clone()
    for pruned, unified in ((0.4, 0.4), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0)):
        placed = projected(blocks, weight, labels_of(blocks, weight, pruned, unified))
        with torch.no_grad():
            dense.weight.copy_(placed)
        shared = SharedLinear(dense, width)
        assert shared.has_free_weights == (pruned + unified < 1)
        for x in (torch.randn(5, 37), torch.randn(2, 3, 37), torch.randn(37)):
            assert torch.allclose(copy.deepcopy(shared)(x), dense(x), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": "valid", "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    ],
)
def test_shared_convolutions_compute_what_the_dense_ones_do(options: dict[str, Any]) -> None:
    """Free, unified and pruned blocks; also where runs do not divide the channels."""
    torch.manual_seed(0)
    dense = nn.Conv2d(10, 6, **options)
    weight = dense.weight.detach().clone()
    for width, (pruned, unified) in itertools.product((2, 4), ((0.3, 0.4), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0))):
        blocks = Blocks(tuple(weight.shape), (1, width, 1, 1))
        with torch.no_grad():
            dense.weight.copy_(projected(blocks, weight, labels_of(blocks, weight, pruned, unified)))
        shared = SharedConvolution(dense, width)
        if pruned + unified == 1:  # a magnitude for each block
            count = sum(len(shared.magnitudes(number).values()) for number in range(weight[0, 0].numel()))
            assert count == int((found_labels(blocks, dense.weight) == UNIFIED).sum())
        for x in (torch.randn(3, 10, 9, 10), torch.randn(1, 10, 7, 7), torch.randn(10, 9, 9)):
            assert torch.allclose(copy.deepcopy(shared)(x), dense(x), atol=1e-5)


def test_a_network_takes_shared_magnitudes_only_where_they_are_faster_and_computes_the_same() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 600), nn.ReLU(), nn.Linear(600, 600, bias=False)]
    model, x = nn.Sequential(*layers).eval(), torch.randn(3, 1, 8, 8)
    shapes = {"0.weight": (1, 4), "2.weight": (1, 4), "4.weight": (1, 16)}
    with torch.no_grad():
        for name, shape in shapes.items():
            weight = model.get_parameter(name)
            blocks = Blocks(tuple(weight.shape), shape)
            weight.copy_(projected(blocks, weight, labels_of(blocks, weight, 0.8, 0.2)))
    fast, chosen = unified_fast_network(model, x, shapes)
    runs = {"0.weight": (), "2.weight": (2, 4), "4.weight": (2, 4, 8)}
    assert all(chosen[name] in ("dense", *(f"shared {run}" for run in widths)) for name, widths in runs.items())
    assert isinstance(fast[2], SharedLinear) == (chosen["2.weight"] != "dense") and type(model[2]) is nn.Linear
    assert torch.allclose(fast(x), model(x), atol=1e-5)
    half, kernels = unified_fast_network(model.bfloat16(), x.bfloat16(), shapes)  # torch has no sparse products for it
    assert set(kernels.values()) == {"dense"} and half(x.bfloat16()).dtype == torch.bfloat16
