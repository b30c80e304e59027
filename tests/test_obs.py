"""The optimal brain surgeon on units: exact where everything is linear, and near the truth where it is not."""

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.data import as_batches
from secateur.importance.curvature import shrunk
from secateur.importance.evidence import cells_of
from secateur.importance.surgeon import Part, eliminate
from secateur.recovery.rehearsal import Rehearsal


def part(weights: torch.Tensor, covariance: torch.Tensor, width: int) -> Part:
    units = len(covariance) // width
    return Part(weights.clone(), torch.linalg.inv(covariance), torch.arange(units * width).view(units, width))


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
    losses = eliminate(5, [part(weights, covariance, width)])
    order = losses.argsort()
    for gone in range(1, 5):
        kept = (order[gone:, None] * width + torch.arange(width)).flatten()
        assert float(losses[order[gone - 1]]) == pytest.approx(least_error(weights, covariance, kept) / 2, rel=1e-8)
    assert float(losses.max()) == pytest.approx(float((weights @ covariance @ weights.T).trace()) / 2, rel=1e-8)


def test_the_one_goes_first_that_costs_least_by_enumeration() -> None:
    torch.manual_seed(1)
    features = torch.randn(300, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    covariance, weights = features.T @ features / 300, torch.randn(2, 6, dtype=torch.float64)
    alone = [least_error(weights, covariance, torch.tensor([k for k in range(6) if k != unit])) for unit in range(6)]
    assert int(eliminate(6, [part(weights, covariance, 1)]).argmin()) == min(range(6), key=alone.__getitem__)


def test_readers_add_up() -> None:
    torch.manual_seed(2)
    covariance = torch.eye(3, dtype=torch.float64)
    first, second = torch.tensor([[1.0, 5.0, 9.0]]).double(), torch.tensor([[9.0, 5.0, 1.0]]).double()
    losses = eliminate(3, [part(first, covariance, 1), part(second, covariance, 1)])
    assert losses.tolist() == pytest.approx([25 + 41, 25, 25 + 41 + 41]) or losses.tolist() == pytest.approx(
        [25 + 41 + 41, 25, 25 + 41]
    )


def test_of_twins_one_is_worth_nothing_and_a_dead_unit_goes_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = model[0].weight[4], model[0].bias[4]
        model[0].weight[7], model[0].bias[7] = 0, 0
    scores = sc.score(sc.trace(model, torch.randn(2, 5)), torch.randn(4000, 5), by="obs", progress=False)
    values = scores["0"].values
    order = values.argsort().tolist()
    assert set(order[:2]) in ({7, 4}, {7, 5})
    assert float(values[order[1]]) < 0.2 * float(values[order[2]])


def test_the_estimate_is_near_what_a_refit_really_loses() -> None:
    """Without places that depend on each other, and while little is lost: within a factor of two."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 5)), list(torch.randn(4000, 6).split(500))
    network = sc.trace(model, data[0][:2])
    values = sc.score(network, data, by="obs", progress=False)["0"].values
    rehearsal = Rehearsal(network, cells_of(as_batches(data), torch.device("cpu")))
    order = values.argsort()
    for gone in (10, 20, 30):
        found = rehearsal.divergence({"0": order[gone:].sort().values})
        assert found / 2 < float(values[order[gone - 1]]) < found * 2


def test_labels_make_no_difference() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 5)
    network = sc.trace(model, x[:2])
    found = [sc.score(network, data, by="obs", progress=False)["0"].values for data in (x, (x, torch.zeros(64).long()))]
    assert torch.equal(*found)


def test_units_without_a_reader_to_solve_for() -> None:
    """The hidden units of a recurrent layer that reads nothing but itself, and experts: each is judged alone."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x)[0])[0][:, -1]

    network = sc.trace(Net(), torch.randn(2, 5, 4))
    scores = sc.score(network, torch.randn(40, 5, 4), by="obs", progress=False)
    assert all(bool((scores[name].values > 0).all()) for name in scores)


def test_shrinkage_is_strong_where_examples_are_few() -> None:
    torch.manual_seed(0)
    truth = torch.eye(40, dtype=torch.float64)
    few, many = (torch.cov(torch.randn(40, rows, dtype=torch.float64), correction=0)[None] for rows in (20, 20_000))
    assert float((shrunk(few, 20)[0] - truth).square().mean()) < 0.2 * float((few[0] - truth).square().mean())
    assert float((shrunk(many, 20_000)[0] - many[0]).abs().max()) < 0.05
    torch.linalg.cholesky(shrunk(few, 20))
