"""A refit makes up for what went: twins, residual streams, groups, scaled results."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from repaired_networks import cut_two_fifths, repair_alone
from secateur.recovery.refit import refit
from zoo import grow

pytestmark = untrained_networks


def twins(layer: Any, axis: int) -> None:
    """Every unit twice."""
    half = layer.weight.shape[axis] // 2
    halves = layer.weight.data.narrow(axis, 0, half)
    layer.weight.data.copy_(torch.cat([halves, halves], axis))
    if axis == 0:
        layer.bias.data.copy_(layer.bias.data[:half].repeat(2))


CONVOLUTIONS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "without a bias": {"bias": False},
}


@pytest.mark.parametrize("how", [*CONVOLUTIONS, "linear", "in one dimension"])
def test_a_refit_makes_up_for_twins_that_went(how: str) -> None:
    """Of every two equal units one goes: the layer that reads them can be as it was, and is."""
    torch.manual_seed(0)
    if how == "linear":
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        x = torch.randn(80, 4, 5)
    elif how == "in one dimension":
        model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Tanh(), nn.Conv1d(8, 3, 3, stride=2, padding=1))
        x = torch.randn(80, 3, 12)
    else:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 3, 3, **CONVOLUTIONS[how]))
        x = torch.randn(80, 3, 8, 8)
    twins(model[0], 0)
    network = sc.trace(model, x)
    plan = sc.Plan(network, {"0": torch.arange(4)}, {}, network.cost(), network.cost(), {})
    small = sc.cut(model, plan)
    before = float((small(x) - model(x)).abs().max())
    sc.repair(small, model, plan, x, how="refit")
    assert float((small(x) - model(x)).abs().max()) < 0.02 * before


def test_a_refit_of_a_layer_without_a_bias_after_zero_removal() -> None:
    """There is nowhere to put a constant, so the weights must do without one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Linear(12, 3, bias=False))
    x = torch.randn(200, 5)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="random"), {"units": 0.5})
    small = sc.cut(model, plan)
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x, how="refit")
    with torch.no_grad():
        kept = model[:2](x)[:, plan.kept["0"]]
        best = torch.linalg.lstsq(kept, model(x)).solution
        least = float((kept @ best - model(x)).square().mean())
    assert small[2].bias is None
    assert float((small(x) - model(x)).square().mean()) < least + 0.05 * (before - least)


def test_a_refit_leaves_the_dense_model_and_its_hooks() -> None:
    model, _ = grow("vgg")
    x = torch.randn(40, 3, 8, 8)
    small, plan = cut_two_fifths(model, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sc.repair(small, model, plan, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*small.modules(), *model.modules()))


class Block(nn.Module):
    """A residual stream whose width can be cut, between two layers that make and read it."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.make, self.read = nn.Linear(6, 16), nn.Linear(16, 3)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(40, 16)
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.make(x)
        return self.read(self.norm(stream + self.down(torch.relu(self.up(stream)))))


@pytest.mark.parametrize("norm", [False, True])
def test_the_error_of_a_residual_stream_is_made_good(norm: bool) -> None:
    """The last layer of a block corrects the error that the residual stream has before the block."""
    torch.manual_seed(0)
    model, x = Block(norm), torch.randn(400, 6)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, x, by="obs", progress=False), {"units": 0.6})
    small = sc.cut(model, plan)
    stay = plan.kept["make"]

    def branch(of: nn.Module) -> torch.Tensor:
        return of.down(torch.relu(of.up(of.make(x))))

    def error() -> float:
        with torch.no_grad():
            return float((small.make(x) + branch(small) - (model.make(x) + branch(model))[:, stay]).square().mean())

    before = error()
    repair_alone(refit, small, model, plan, x)
    with torch.no_grad():
        stream = float((small.make(x) - model.make(x)[:, stay]).square().mean())
    assert error() < 0.3 * before
    assert stream < 1e-9 or error() < stream


@pytest.mark.parametrize("groups", [8, 2])
def test_convolutions_in_groups_are_refitted(groups: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=groups), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 4),
    )  # fmt: skip
    x = torch.randn(400, 3, 8, 8)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, x, by="obs", progress=False), {"units": 0.7})
    small = sc.cut(model, plan)
    weight = small[4].weight.detach().clone()
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x)
    assert float((small(x) - model(x)).square().mean()) < 0.9 * before
    assert not torch.equal(weight, small[4].weight)


def test_a_layer_whose_result_is_scaled_by_its_module() -> None:
    """The layer is what the program says, whatever its module does besides."""

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Scaled(16, 3))
    x = torch.randn(400, 6)
    small, plan = cut_two_fifths(model, x)
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x)
    assert float((small(x) - model(x)).square().mean()) < 0.5 * before


def test_a_batch_norm_over_another_axis_takes_no_constant() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 8)
            self.c, self.norm, self.d = nn.Linear(8, 12, bias=False), nn.BatchNorm1d(6), nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.b(torch.relu(self.a(x)))
            return self.d(torch.relu(self.norm(self.c(x)))).mean(1)

    torch.manual_seed(0)
    model = Net().eval()
    result = sc.prune(model, torch.randn(120, 6, 8), {"macs": 0.6}, progress=False)
    assert torch.equal(result.model.norm.running_mean, model.norm.running_mean)


def test_rows_that_are_flattened_before_a_layer_are_those_of_their_examples() -> None:
    """The same network with and without a reshape gets the same scores."""

    class Flat(nn.Module):
        def __init__(self, inner: nn.Module, flatten: bool) -> None:
            super().__init__()
            self.inner, self.flatten = inner, flatten

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x.reshape(-1, 5)).view(-1, 7, 3) if self.flatten else self.inner(x)
            return y.mean(1)

    torch.manual_seed(0)
    inner, x = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(64, 7, 5)
    scores = []
    for flatten in (False, True):
        network = sc.trace(Flat(inner, flatten), x[:2])
        scores.append(sc.score(network, x, by="obs", progress=False)["inner.0"].values)
    assert torch.allclose(*scores, rtol=1e-3)
