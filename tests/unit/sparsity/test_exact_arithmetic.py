"""The arithmetic of the methods below the unit, on cases that are computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.channel_graph.build import graph_of
from secateur.channel_graph.longest_chains import Chains
from secateur.coupling.operator_results import results_of
from secateur.sparsity import Unification
from secateur.sparsity.pivoting.block_sums import Matrix, block_mass, largest_blocks
from secateur.sparsity.pivoting.search import align_orders, pivot_obliviously
from secateur.sparsity.spp.budget import MacBudget, prune_counts
from secateur.sparsity.spp.columns import Columns, columns_of
from secateur.sparsity.spp.layer_selection import layers_to_prune
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, labels_of, project
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


def test_what_remains_is_scaled_by_its_chance_to_be_present() -> None:
    layer = columns([[4.0, 1.0, 3.0]])
    layer.chances = torch.tensor([0.25, 1.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        layer.finish()
    assert layer.weight.flatten().tolist() == [3.0, 0.0, 1.5] and layer.chances.tolist() == [0, 1, 0]


def test_filters_without_consumers_do_not_count_towards_a_budget_of_macs() -> None:
    """Both layers have as many; a column less in the second leaves half of its own, and one filter of the first."""
    network = sc.trace(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval(), torch.ones(1, 1, 2, 2))
    macs = results_of(network.program, network.example).macs
    budget = MacBudget(graph_of(network), macs, 0.5)
    kept = {"2.weight": torch.tensor([True, False])}
    total = sum(macs.values())
    assert budget.remaining_macs({}) == total and budget.remaining_macs(kept) == total / 2
    assert budget.is_met(kept) and not budget.is_met({})


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


def test_a_search_that_ends_early_is_not_called_locally_optimal(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = Matrix("a", np.eye(4), "rows", "columns")
    assert align_orders([matrix], 0.5, (2, 2)).is_locally_optimal
    monkeypatch.setattr("secateur.sparsity.pivoting.search.MOST_ROUNDS", 0)
    assert not align_orders([matrix], 0.5, (2, 2)).is_locally_optimal


def test_the_projection_counts_no_padding() -> None:
    """The last block of a row of 3 in blocks of 2 has one weight: its mean is that weight, its spread is zero."""
    blocks, weight = Blocks((1, 3), (1, 2)), torch.tensor([[1.0, -3.0, 4.0]])
    assert project(blocks, weight, torch.tensor([UNIFIED, UNIFIED])).tolist() == [[2.0, -2.0, 4.0]]
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


@torch.no_grad()
def test_a_smaller_block_at_the_end_keeps_its_magnitude() -> None:
    layer = state([[1.0, -3.0, 4.0]])
    layer.harden(0.0, 1.0)
    layer.restore_structure()
    assert layer.weight.tolist() == [[2.0, -2.0, 4.0]]
    assert layer.structured_gradient(torch.tensor([[1.0, -3.0, 5.0]])).tolist() == [[2.0, -2.0, 5.0]]


def test_the_penalty_is_the_same_where_a_fused_optimizer_unscales_gradients() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), 1.0, fused=True)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -3.0]]))
    Unification(model, optimizer, 0.0, shape=(1, 2), rho=0.5, only="*")
    model[0].weight.grad = torch.zeros(1, 2)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert model[0].weight.tolist() == [[1.5, -2.5]]  # W - rho (W - Z), Z = (2, -2)


@pytest.mark.parametrize(("rho", "larger"), [(0.25, 0.5), (0.75, 1.0), (2.0, 2.0)])
def test_rho_grows_to_1_and_never_falls(rho: float, larger: float) -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    method = Unification(model, optimizer, 0.0, shape=(1, 2), rho=rho, growth=2.0, every=1, only="*")
    model[0].weight.grad = torch.zeros(1, 2)
    optimizer.step()
    assert method.rho == larger


def test_a_chain_may_have_a_product_of_1_and_is_the_shortest_of_equals() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[1].weight, 2.0)
    chains = list(Chains(graph_of(sc.trace(model, torch.ones(1, 1)))))
    assert [(round(float(np.exp(chain.value)), 9), len(chain.kernels)) for chain in chains] == [(2.0, 1), (1.0, 1)]


class Resized(nn.Module):
    """Maps of 2 x 2 that are enlarged to 4 x 4, and their mean or sum."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.reduction = reduction

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enlarged = nn.functional.interpolate(self.conv(x), scale_factor=2.0)
        return enlarged.mean((2, 3)) if self.reduction == "mean" else enlarged.sum((2, 3))


@pytest.mark.parametrize(("reduction", "norm"), [("mean", 1 / 4), ("sum", 4.0)])
def test_norms_of_enlarging_and_of_means_and_sums(reduction: str, norm: float) -> None:
    """Each entry stands 4 times in the larger map, whose length is twice that of the smaller."""
    graph = graph_of(sc.trace(Resized(reduction).eval(), torch.ones(1, 1, 2, 2)))
    norms = [float(block.values.exp()) for block in graph.blocks if block.layer is None]
    assert norms == pytest.approx([2.0, norm])
