"""Blocks of one absolute value: the nearest ones, ADMM towards them, steps that keep them, and a file of their size."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.sparsity.unification.blocks import (
    FREE,
    PRUNED,
    UNIFIED,
    Blocks,
    existing_labels,
    labels_of,
    project,
)
from secateur.sparsity.unification.result import count_blocks
from secateur.sparsity.unification.shapes import block_shapes
from secateur.sparsity.unification.unification import Unification
from unification_trainings import UnifiedNetwork, random_weight, start_unification, train_steps


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_blocks_come_apart_and_together(rows: int, columns: int, high: int, wide: int) -> None:
    blocks, x = Blocks((rows, columns), (high, wide)), random_weight(rows, columns)
    assert torch.equal(blocks.join(blocks.cut(x)), x)
    assert int(blocks.sizes().sum()) == rows * columns and blocks.cut(x).shape == (blocks.count, high * wide)


def test_the_best_value_is_the_mean_of_the_absolute_ones() -> None:
    """And the signs stay; zero counts as plus. No other value or signs are nearer."""
    x = torch.tensor([[1.0, -3.0, 0.0, 2.0]])
    blocks = Blocks((1, 4), (1, 4))
    unified = project(blocks, x, torch.tensor([UNIFIED]))
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
    assert project(Blocks((1, 7), (1, 2)), x, everything)[0, 6] == x[0, 6]  # alone in its block: its own mean


def test_inner_layers_by_default_and_others_by_name() -> None:
    _, _, unification = start_unification()
    assert [state.name for state in unification.layers] == ["second", "third"]
    assert [state.name for state in start_unification(only="*", skip="f*")[2].layers] == ["second", "third"]
    deep = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    by_default = Unification(deep, torch.optim.SGD(deep.parameters(), 0.1))
    assert [state.name for state in by_default.layers] == ["2"]


def test_the_penalty_is_the_gradient_of_the_squared_norm() -> None:
    model, optimizer, unification = start_unification(make=torch.optim.SGD, rho=0.3)
    state = unification.layers[0]
    state.dual.copy_(random_weight(*state.dual.shape, seed=3))
    before = model.second.weight.detach().clone().requires_grad_()
    (0.15 * (before - state.auxiliary + state.dual).square().sum()).backward()
    model.second.weight.grad = torch.zeros_like(model.second.weight)
    optimizer.step()
    assert torch.allclose(model.second.weight, before - 0.01 * before.grad, atol=1e-7)


def test_rounds_draw_the_weights_to_the_structure() -> None:
    """The residual falls far below what it was; with hardly any penalty it does not."""
    model, optimizer, unification = start_unification(rho=0.1, every=25)
    first = dict(unification.residuals)
    train_steps(model, optimizer, 0, 200)
    assert all(residual < first[name] / 3 for name, residual in unification.residuals.items())
    weak_model, weak_optimizer, weak = start_unification(rho=1e-6, growth=1.0, every=25)
    train_steps(weak_model, weak_optimizer, 0, 200)
    assert all(residual > unification.residuals[name] for name, residual in weak.residuals.items())


def test_the_multiplier_keeps_its_meaning_when_rho_grows() -> None:
    model, optimizer, unification = start_unification(every=1, rho=0.1, growth=2.0)
    state = unification.layers[0]
    labels = state.labels
    w = state.weight.detach().clone()
    gap = state.dual + w - project(state.blocks, w + state.dual, labels_of(state.blocks, w + state.dual, 0.5, 0.5))
    with torch.no_grad():
        unification._update()
    assert unification.rho == 0.2 and torch.allclose(state.dual, gap / 2) and len(labels) == state.blocks.count


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_hard_steps_keep_zeros_signs_and_one_magnitude(make: Any) -> None:
    model, optimizer, unification = start_unification(make=make)
    train_steps(model, optimizer, 0, 5)
    unification.harden()
    labels = {state.name: state.labels.clone() for state in unification.layers}
    signs = {state.name: state.weight.detach().sign() for state in unification.layers}
    before = {state.name: state.weight.detach().clone() for state in unification.layers}
    train_steps(model, optimizer, 5, 20)
    for state in unification.layers:
        assert torch.equal(existing_labels(state.blocks, state.weight), labels[state.name])
        unified = state.blocks.cut(state.weight.detach())[labels[state.name] == UNIFIED]
        unified_signs = state.blocks.cut(signs[state.name])[labels[state.name] == UNIFIED]
        assert torch.equal(unified.sign(), unified_signs)
        assert not torch.equal(state.weight.detach(), before[state.name])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_blocks_along_any_axes_are_those_that_are_counted_out(lengths: list[int], sides: list[int]) -> None:
    """Entry by entry: which block each weight falls into, and back."""
    x, shape = random_weight(*lengths), tuple(sides[: len(lengths)])
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
    deep, wide = UnifiedNetwork(), nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(8, 2))
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
