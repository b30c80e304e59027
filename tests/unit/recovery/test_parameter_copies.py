"""Repairs of layers whose code copies or casts their parameters, as mixed precision does before each layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(2))


class Copying(nn.Module):
    """Layers that are called with a copy of their parameters."""

    def __init__(self, copied: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.copied = copied
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        for layer in (self.a, self.b):
            x = F.relu(F.linear(x, self.copied(layer.weight, x), self.copied(layer.bias, x)))
        return F.linear(x, self.copied(self.c.weight, x), self.copied(self.c.bias, x))


class CopyingConvolutions(nn.Module):
    """Convolutions in front of batch norms, a transposed one among them, with copies of their parameters."""

    def __init__(self, copied: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.copied = copied
        self.a, self.b, self.c = nn.Conv2d(2, 8, 3), nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 3, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        x = F.relu(self.norm(F.conv2d(x, self.copied(self.a.weight, x), self.copied(self.a.bias, x))))
        x = F.relu(F.conv_transpose2d(x, self.copied(self.b.weight, x), self.copied(self.b.bias, x)))
        return F.conv2d(x, self.copied(self.c.weight, x), self.copied(self.c.bias, x)).mean((2, 3))


class Mixed(Copying):
    """The layers in bfloat16, chosen by a context."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers, and return float32."""
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


def plain(parameter: Tensor, x: Tensor) -> Tensor:
    """Return the parameter."""
    return parameter


def pruned(model: nn.Module, data: Tensor, repair: str) -> dict[str, Tensor]:
    """Return the state of a pruned and repaired model."""
    result = sc.prune(model.eval(), data, {"params": 0.6}, by="l2", repair=repair, progress=False)
    return result.model.state_dict()


@pytest.mark.parametrize("repair", ["refit", "adapt"])
@pytest.mark.parametrize(("kind", "data"), [(Copying, X), (CopyingConvolutions, IMAGES)])
@pytest.mark.filterwarnings("ignore:.*(with care only|left out|fits the examples used)")
def test_copies_of_parameters_are_repaired_as_the_parameters_are(
    kind: type[Copying | CopyingConvolutions], data: Tensor, repair: str
) -> None:
    expected = pruned(kind(plain), data, repair)
    for copied in (lambda parameter, x: parameter.clone(), lambda parameter, x: parameter.type_as(x)):
        state = pruned(kind(copied), data, repair)
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("repair", ["refit", "adapt"])
def test_layers_in_mixed_precision_are_repaired(repair: str) -> None:
    model = Mixed(plain).eval()
    bare = sc.prune(model, X, {"params": 0.6}, by="l2", repair=None, progress=False).model
    repaired = sc.prune(model, X, {"params": 0.6}, by="l2", repair=repair, progress=False).model
    dense = model(X)
    assert (repaired(X) - dense).square().mean() < 0.7 * (bare(X) - dense).square().mean()
