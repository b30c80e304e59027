"""Scores of units of complex numbers equal those of the same network in real numbers, part by part."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks


class OfComplexNumbers(nn.Module):
    """Two layers of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 6, dtype=torch.cfloat), nn.Linear(6, 2, bias=False, dtype=torch.cfloat)

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.head(self.hidden(x.to(torch.cfloat)))).flatten(1)


class OfParts(nn.Module):
    """The same in real numbers: real and imaginary parts are two entries of each unit."""

    def __init__(self, twin: OfComplexNumbers) -> None:
        super().__init__()
        self.hidden, self.mixing = nn.Linear(4, 12), nn.Linear(12, 4, bias=False)
        weight, bias, head = twin.hidden.weight.detach(), twin.hidden.bias.detach(), twin.head.weight.detach()
        with torch.no_grad():
            self.hidden.weight.copy_(torch.view_as_real(weight).transpose(1, 2).flatten(0, 1))
            self.hidden.bias.copy_(torch.view_as_real(bias).flatten())
            rows = torch.stack([torch.stack([head.real, -head.imag], -1), torch.stack([head.imag, head.real], -1)], 1)
            self.mixing.weight.copy_(rows.flatten(0, 1).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.mixing(self.hidden(x))


@pytest.fixture(scope="module")
def complex_and_real() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = OfComplexNumbers()
    return network, OfParts(network)


X = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
TARGET = torch.randn(40, 4, generator=torch.Generator().manual_seed(2))
COMBINED = {
    "l1": None,  # of the absolute values of complex weights
    "l2": lambda components: components.square().sum(1).sqrt(),
    "taylor-signed": lambda components: components.sum(1),
    "apoz": lambda components: components.mean(1),
    "sensitivity": lambda components: components.sum(1),
}


def _scores(model: nn.Module, by: str) -> Tensor:
    return sc.score(sc.trace(model, X[:2]), [(X, TARGET)], by=by, progress=False)["hidden"].values


@pytest.mark.parametrize("by", COMBINED)
def test_scores_equal_those_of_the_parts(by: str, complex_and_real: tuple[nn.Module, nn.Module]) -> None:
    network, components = complex_and_real
    combine = COMBINED[by]
    expected = (
        network.hidden.weight.detach().abs().sum(1).double()  # type: ignore[union-attr, operator]
        if combine is None
        else combine(_scores(components, by).unflatten(0, (6, 2)))
    )
    assert torch.allclose(_scores(network, by), expected, rtol=1e-4)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum(1)


def test_the_product_of_weight_and_slope_adds_up_both_parts(complex_and_real: tuple[nn.Module, nn.Module]) -> None:
    network, x, target = complex_and_real[0], X[:32], TARGET[:32]
    weight = network.hidden.weight
    assert isinstance(weight, Tensor)
    slope = torch.autograd.grad(_loss(network(x), target).mean(), weight)[0]
    expected = (slope.real * weight.real + slope.imag * weight.imag).detach().double().square().sum(1)
    scores = sc.score(sc.trace(network, x[:2]), [(x, target)], by="taylor-weights", loss=_loss, progress=False)
    assert torch.allclose(scores["hidden"].values, expected, rtol=1e-4)
    second = sc.score(sc.trace(network, x[:2]), [(x, target)], by="taylor-weights-second", loss=_loss, progress=False)
    assert bool((second["hidden"].values > 0).all())


def test_networks_of_complex_numbers_are_repaired(complex_and_real: tuple[nn.Module, nn.Module]) -> None:
    for repair in ("mean", ("refit", "adapt")):
        result = sc.prune(
            complex_and_real[0], X, {"macs": 0.5}, by="l2", repair=repair, allocation="uniform", progress=False
        )
        assert result.model.hidden.weight.shape == (3, 4)  # type: ignore[union-attr]
