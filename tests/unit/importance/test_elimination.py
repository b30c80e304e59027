"""Costs of units that go together are the errors of the best predictions."""

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.importance import elimination
from secateur.importance.elimination import ConsumerFactor, eliminate_units
from secateur.importance.fisher import FisherAccumulator
from secateur.importance.inverse_covariances import MatrixInverse, RowsInverse
from secateur.masking import row_products
from secateur.masking.linear_layers import layers_of


def factor_of(weights: torch.Tensor, covariance: torch.Tensor, width: int) -> ConsumerFactor:
    units = len(covariance) // width
    inverse = MatrixInverse(torch.linalg.inv(covariance))
    return ConsumerFactor(weights, inverse, torch.arange(units * width).view(units, width))


def least_error(weights: torch.Tensor, covariance: torch.Tensor, kept: torch.Tensor) -> float:
    """Of the best linear prediction of weights @ x from some of x."""
    wanted = weights @ covariance
    explained = wanted[:, kept] @ torch.linalg.solve(covariance[kept][:, kept], wanted[:, kept].T)
    return float((weights @ covariance @ weights.T - explained).diagonal().sum())


@pytest.mark.parametrize("width", [1, 3])
def test_costs_that_come_together_are_the_errors_of_the_best_predictions(width: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 5 * width, dtype=torch.float64) @ torch.randn(5 * width, 5 * width, dtype=torch.float64)
    covariance, weights = features.T @ features / 200, torch.randn(4, 5 * width, dtype=torch.float64)
    losses = eliminate_units(5, [factor_of(weights, covariance, width)])
    order = losses.argsort()
    for gone in range(1, 5):
        kept = (order[gone:, None] * width + torch.arange(width)).flatten()
        assert float(losses[order[gone - 1]]) == pytest.approx(least_error(weights, covariance, kept) / 2, rel=1e-8)
    assert float(losses.max()) == pytest.approx(float((weights @ covariance @ weights.T).trace()) / 2, rel=1e-8)


@pytest.mark.parametrize("width", [1, 3])
def test_changes_carried_out_together_are_changes_one_by_one(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers, one of which reads values of other groups, too; changes are carried out at every step or never."""
    torch.manual_seed(0)
    counts = 20 * width, 20 * width + 7
    features = [torch.randn(400, n, dtype=torch.float64) @ torch.randn(n, n, dtype=torch.float64) for n in counts]
    inverses = [MatrixInverse(torch.linalg.inv(operands.T @ operands / 400)) for operands in features]
    columns = [torch.randperm(n)[: 20 * width].view(20, width) for n in counts]
    weights = [torch.randn(5, n, dtype=torch.float64) for n in counts]
    factors = [ConsumerFactor(*operands) for operands in zip(weights, inverses, columns, strict=True)]
    losses = []
    for block in (1, 9, 10_000):
        monkeypatch.setattr(elimination, "BLOCK", block)
        losses.append(eliminate_units(20, factors))
    assert losses[0].argsort().tolist() == losses[1].argsort().tolist() == losses[2].argsort().tolist()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("block", [1, 9, 10_000])
def test_few_rows_tell_what_the_covariance_that_they_add_up_to_tells(
    width: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(elimination, "BLOCK", block)
    rows, level = torch.randn(11, 20 * width + 7, dtype=torch.float64), 0.03
    covariance = rows.T @ rows + level * torch.eye(rows.shape[1]).double()
    weights, columns = (
        torch.randn(5, rows.shape[1]).double(),
        torch.randperm(rows.shape[1])[: 20 * width].view(20, width),
    )
    inverses = RowsInverse(rows, level), MatrixInverse(torch.linalg.inv(covariance))
    few, whole = (eliminate_units(20, [ConsumerFactor(weights, inverse, columns)]) for inverse in inverses)
    torch.testing.assert_close(few, whole, rtol=1e-9, atol=0)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_that_few_rows_are_known_of_has_the_covariance_of_all_its_features(
    has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 6, bias=has_bias), nn.ReLU(), nn.Linear(6, 2))
    network = sc.trace(model, torch.randn(2, 4))
    layer = next(candidate for candidate in layers_of(network) if candidate.name == "2")
    microbatches, covariances = torch.randn(3, 3, 30).relu(), []
    for few in (3, 1_000):
        monkeypatch.setattr(row_products, "FEATURES_PER_ROW", few)
        sums = FisherAccumulator(layer, model[2].weight.detach())
        for microbatch in microbatches:
            sums.read(microbatch, 3, 1, torch.Generator())
        sums.add_gradient(torch.randn(9, 6), 9)
        covariances.append(sums.result().covariance)
    assert covariances[0].rows is not None
    assert covariances[1].rows is None
    torch.testing.assert_close(covariances[0].dense(), covariances[1].dense(), rtol=1e-5, atol=1e-6)
    product = covariances[1].dense()[0] @ covariances[0].inverse(0).lines(torch.arange(30))
    torch.testing.assert_close(product, torch.eye(30).double(), rtol=0, atol=1e-4)


def test_a_layer_that_gives_more_than_it_reads_has_its_curvature_along_what_it_reads() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 2))
    network = sc.trace(model, torch.randn(2, 4))
    layer = next(candidate for candidate in layers_of(network) if candidate.name == "2")
    weight, gradients = model[2].weight.detach().double(), torch.randn(50, 30).double()
    narrow, full = FisherAccumulator(layer, weight), FisherAccumulator(layer, weight)
    full.matrices = None
    for sums in (narrow, full):
        sums.read(torch.ones(50, 6) * torch.arange(50)[:, None], 50, 1, torch.Generator())
        sums.add_gradient(gradients, 50)
    assert narrow.curvature.shape == (1, 6, 6)
    roots = [sums.result().weighted(weight.double(), 0) for sums in (narrow, full)]
    torch.testing.assert_close(roots[0].T @ roots[0], roots[1].T @ roots[1])


def test_the_one_goes_first_that_costs_least_by_enumeration() -> None:
    torch.manual_seed(1)
    features = torch.randn(300, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    covariance, weights = features.T @ features / 300, torch.randn(2, 6, dtype=torch.float64)
    alone = [least_error(weights, covariance, torch.tensor([k for k in range(6) if k != unit])) for unit in range(6)]
    assert int(eliminate_units(6, [factor_of(weights, covariance, 1)]).argmin()) == min(range(6), key=alone.__getitem__)


def test_losses_of_several_consumers_are_added() -> None:
    torch.manual_seed(2)
    covariance = torch.eye(3, dtype=torch.float64)
    first, second = torch.tensor([[1.0, 5.0, 9.0]]).double(), torch.tensor([[9.0, 5.0, 1.0]]).double()
    losses = eliminate_units(3, [factor_of(first, covariance, 1), factor_of(second, covariance, 1)])
    assert losses.tolist() == pytest.approx([25 + 41, 25, 25 + 41 + 41]) or losses.tolist() == pytest.approx(
        [25 + 41 + 41, 25, 25 + 41]
    )
