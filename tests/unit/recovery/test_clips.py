"""The bounds beyond which an activation is constant, as repairs ask for them."""

from collections.abc import Callable
from math import inf

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.recovery.targets import clipped_bounds

pytestmark = untrained_networks

BOUNDS: list[tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = [
    (torch.relu, (0, inf)),
    (nn.functional.relu6, (0, 6)),
    (nn.functional.hardtanh, (-1, 1)),
    (lambda x: x.clamp(min=-2), (-2, inf)),
    (lambda x: x.clamp(max=3), (-inf, 3)),
    (lambda x: x.clamp(-2, 3), (-2, 3)),
    (torch.tanh, (-inf, inf)),
]


class Activated(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.fc(x)))


@pytest.mark.parametrize(("activation", "bounds"), BOUNDS)
def test_activations_are_constant_beyond_their_bounds(
    activation: Callable[[Tensor], Tensor], bounds: tuple[float, float]
) -> None:
    network = sc.trace(Activated(activation), torch.randn(2, 3))
    layer = next(node for node in network.program.nodes if "linear" in node.name)
    assert clipped_bounds(next(iter(layer.users))) == bounds
