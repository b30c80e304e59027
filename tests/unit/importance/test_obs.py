"""The optimal brain surgeon on units: exact where everything is linear, and near the truth where it is not."""

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from secateur.allocation.simulate import PlanSimulator
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.importance import fisher, shrinkage
from secateur.importance.context import network_microbatches
from secateur.importance.drawn_loss import drawn_classes
from secateur.importance.fisher import FisherAccumulator
from secateur.importance.inverse_covariances import MatrixInverse
from secateur.importance.shrinkage import ShrunkCovariance
from secateur.masking.linear_layers import layers_of


def shrunk(moments: torch.Tensor, rows: int) -> torch.Tensor:
    return ShrunkCovariance.of(moments.clone(), rows).dense()


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
    simulator = PlanSimulator(Calibration(network, network_microbatches(network, as_batches(data))))
    order = values.argsort()
    for gone in (10, 20, 30):
        measured = simulator.divergence({"0": order[gone:].sort().values})
        assert measured / 2 < float(values[order[gone - 1]]) < measured * 2


def test_labels_make_no_difference() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 5)
    network = sc.trace(model, x[:2])
    values = [
        sc.score(network, data, by="obs", progress=False)["0"].values for data in (x, (x, torch.zeros(64).long()))
    ]
    assert torch.equal(*values)


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


def test_gradients_as_small_as_a_confident_network_has_count_as_large_ones_do() -> None:
    """Their squares are beyond single precision, in which products are taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    layer = layers_of(sc.trace(model, torch.randn(2, 4)))[-1]
    gradients, curvatures = torch.randn(50, 3), []
    for scale in (1.0, 1e-25):
        sums = FisherAccumulator(layer, model[2].weight.detach())
        sums.add_gradient(gradients * scale, 50)
        curvatures.append(sums.curvature / scale**2)
    torch.testing.assert_close(curvatures[1], curvatures[0], rtol=1e-5, atol=0)


def test_classes_are_drawn_by_their_chances() -> None:
    chances = torch.tensor([[0.1, 0.0, 0.4, 0.2, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    rows = 100_000
    classes = drawn_classes(chances.expand(rows, 2, 6), torch.Generator().manual_seed(0))
    shares = torch.bincount(classes[:, 0], minlength=6) / rows
    deviations = (chances[0] * (1 - chances[0]) / rows).sqrt()
    assert bool(((shares - chances[0]).abs() <= 4 * deviations).all())  # exactly zero where the chance is zero
    assert bool((classes[:, 1] == 4).all())


def test_classes_are_drawn_in_half_precision() -> None:
    chances = torch.full((50, 3, 400), 1 / 400, dtype=torch.bfloat16)
    classes = drawn_classes(chances, torch.Generator().manual_seed(0))
    assert classes.shape == (50, 3)
    assert 150 < float(classes.double().mean()) < 250
    assert int(classes.max()) > 350


def test_projections_of_one_input_share_its_covariance_and_its_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values read the same rows, as do gates and what they multiply."""
    model, batch = tiny_transformer("llama", 48)
    network = sc.trace(model, batch, kinds=("residual", "neurons"))
    inverted = []
    invert = shrinkage.invert_covariance

    def counted(matrix: Tensor) -> MatrixInverse:
        inverted.append(len(matrix))
        return invert(matrix)

    monkeypatch.setattr(shrinkage, "invert_covariance", counted)
    scores = sc.score(network, batch, by="obs", progress=False)
    alike = len(inverted)
    monkeypatch.setattr(fisher, "_input_key", lambda layer: layer)
    apart = sc.score(network, batch, by="obs", progress=False)
    # q, k, v once and gate, up once in each of two blocks, down of each, and the head; apart each by itself
    assert (alike, len(inverted) - alike) == (2 * 2 + 2 + 1, 2 * 5 + 2 + 1)
    for name in scores:
        assert torch.allclose(scores[name].values, apart[name].values, rtol=1e-6)


def test_units_whose_layers_read_them_one_by_one_are_scored_by_their_gates() -> None:
    """Whole groups of a convolution are units: none of its outputs can mend the lack of one by another."""

    class GroupedConvolutionModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.grouped = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 12, 3, groups=4)
            self.recurrent, self.last = nn.GRU(12, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.grouped(torch.relu(self.first(x)))).transpose(1, 2)
            scores: Tensor = self.last(self.recurrent(hidden)[0][:, -1])
            return scores

    torch.manual_seed(0)
    model, x = GroupedConvolutionModel().eval(), torch.randn(64, 3, 12)
    with torch.no_grad():
        model.grouped.weight[3:6] = 0
        model.grouped.bias[3:6] = -1  # the second unit is silent
    scores = sc.score(sc.trace(model, x), x, by="obs", progress=False)["first"].values
    assert int(scores.argmin()) == 1 and float(scores[1]) == 0
    assert len(scores.unique()) == 4
