"""The arithmetic of the methods below the unit, on cases that are computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.sparsity.pivoting.block_sums import Matrix, block_mass, largest_blocks
from secateur.sparsity.pivoting.search import pivot_obliviously
from secateur.sparsity.spp.budget import prune_counts
from secateur.sparsity.spp.columns import Columns, columns_of
from secateur.sparsity.spp.layer_selection import layers_to_prune
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, labels_of, projected
from secateur.sparsity.unification.layer_state import LayerState, start_state


def columns(weight: list[list[float]], prune_count: int = 1) -> Columns:
    """The columns of a 1 x 1 convolution with this weight (filters, inputs)."""
    values = torch.tensor(weight)[:, :, None, None]
    model = nn.Sequential(nn.Conv2d(values.shape[1], len(values), 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(values)
    network = sc.trace(model, torch.ones(1, values.shape[1], 2, 2))
    (layer,) = layers_to_prune(model, network, skip=[])
    return columns_of(layer, model[0].weight, prune_count, "columns")


def test_norms_of_columns_are_sums_of_absolute_weights() -> None:
    """Signs that cancel do not make a column weak."""
    assert columns([[3.0, 0.5], [-3.0, 0.5]]).norms().tolist() == [6.0, 1.0]


def test_no_more_columns_become_certain_than_are_missing_and_the_weakest_do() -> None:
    layer = columns([[4.0, 1.0, 3.0, 2.0]], prune_count=2)
    layer.chances = torch.full((4,), 0.999, dtype=torch.float64)
    layer.move_chances()
    assert layer.pruned.tolist() == [False, True, False, True] and layer.missing == 0
    assert 0.9 < float(layer.chances[0]) < 1 and 0.9 < float(layer.chances[2]) < 1


def test_chances_of_weak_columns_rise_and_of_strong_ones_fall() -> None:
    layer = columns([[4.0, 1.0, 3.0, 2.0]], prune_count=2)
    layer.chances = torch.full((4,), 0.5, dtype=torch.float64)
    layer.move_chances()
    assert layer.chances[1] == pytest.approx(0.55) and layer.chances[1] > layer.chances[3] > 0.5
    assert layer.chances[2] == pytest.approx(0.5) and layer.chances[0] < 0.5  # nothing at rank 2 of 2


@pytest.mark.parametrize(("keep", "count"), [(1.0, 0), (0.75, 1), (0.7, 2), (0.25, 3), (0.01, 3)])
def test_counts_are_rounded_up_and_one_column_is_kept(keep: float, count: int) -> None:
    model = nn.Sequential(nn.Conv2d(4, 2, 1)).eval()
    network = sc.trace(model, torch.ones(1, 4, 2, 2))
    layers = layers_to_prune(model, network, skip=[])
    assert prune_counts(network, layers, "columns", {"columns": keep}, None) == {"0": count}


def test_blocks_fill_the_density_exactly_and_one_is_kept_in_any_case() -> None:
    values = np.array([[9.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]])  # blocks of 12 and 8
    assert largest_blocks(values, 0.5, (2, 2), False).tolist() == [[True, False]]
    assert largest_blocks(values, 0.49, (2, 2), False).tolist() == [[True, False]]
    assert largest_blocks(values, 0.99, (2, 2), False).tolist() == [[True, False]]
    assert largest_blocks(values, 1.0, (2, 2), False).tolist() == [[True, True]]
    assert largest_blocks(values, 0.6, (1, 1), True).sum(1).tolist() == [2, 2]  # 2.4 of 4 in each row
    matrix = Matrix("a", values, "rows", "columns")
    orders = {"rows": np.arange(2), "columns": np.array([0, 2, 1, 3])}
    assert block_mass(matrix, orders, np.array([[True, False]]), (2, 2)) == 9 + 2 + 1 + 2
    assert pivot_obliviously(values, 0.25) == (9 + 2) / 20


def test_the_projection_counts_no_padding() -> None:
    """The last block of a row of 3 in blocks of 2 has one weight: its mean is that weight, its spread is zero."""
    blocks, weight = Blocks((1, 3), (1, 2)), torch.tensor([[1.0, -3.0, 4.0]])
    assert projected(blocks, weight, torch.tensor([UNIFIED, UNIFIED])).tolist() == [[2.0, -2.0, 4.0]]
    assert labels_of(blocks, weight, 0.0, 0.5).tolist() == [FREE, UNIFIED]
    assert labels_of(blocks, weight, 0.5, 1.0).tolist() == [PRUNED, UNIFIED]  # no block is both


def state(weight: list[list[float]], pruned: float = 0.0, unified: float = 1.0) -> LayerState:
    return start_state("layer", nn.Parameter(torch.tensor(weight)), (1, 2), pruned, unified)


def test_an_update_of_admm_by_hand() -> None:
    layer = state([[1.0, -3.0, 4.0]])
    assert layer.auxiliary.tolist() == [[2.0, -2.0, 4.0]] and layer.residual == pytest.approx((2 / 26) ** 0.5)
    assert layer.penalty_gradient().tolist() == [[-1.0, -1.0, 0.0]]
    layer.update(0.0, 1.0)
    assert layer.dual.tolist() == [[-1.0, -1.0, 0.0]]
    layer.update(0.0, 1.0)  # W + U = (0, -4, 4)
    assert layer.auxiliary.tolist() == [[2.0, -2.0, 4.0]] and layer.dual.tolist() == [[-2.0, -2.0, 0.0]]


@torch.no_grad()
def test_the_structure_is_restored_by_hand() -> None:
    layer = state([[2.0, -2.0, 4.0, 4.0]])
    layer.harden(0.0, 1.0)
    gradient = layer.structured_gradient(torch.tensor([[1.0, -3.0, 1.0, -1.0]]))
    assert gradient.tolist() == [[2.0, -2.0, 0.0, 0.0]]
    layer.weight.copy_(torch.tensor([[1.0, -3.0, -5.0, 3.0]]))  # a mean below zero along the signs: none is left
    layer.restore_structure()
    assert layer.weight.tolist() == [[2.0, -2.0, 0.0, 0.0]]
