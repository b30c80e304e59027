"""Criteria that differentiate the network, over an operator without a gradient."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import DataError, MissingGradientError

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3


@torch.library.custom_op("secateur_tests::opaque_double", mutates_args=())
def opaque_double(x: Tensor) -> Tensor:
    """An operator without a gradient."""
    return x * 2


opaque_double.register_fake(torch.empty_like)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(opaque_double(self.middle(self.first(x).relu())))


@pytest.fixture(scope="module")
def network() -> sc.Network:
    return sc.trace(Net(), X[:2])


WITH_GRADIENTS = [
    "integrated-gradients", "obs", "sensitivity", "taylor", "taylor-gates", "taylor-gates-before-norm",
    "taylor-gates-examples", "taylor-gates-norms", "taylor-gates-second", "taylor-signed", "taylor-weights",
    "taylor-weights-second",
]  # fmt: skip


@pytest.mark.parametrize("by", WITH_GRADIENTS)
def test_a_missing_gradient_is_named_with_the_operator_and_the_remedy(network: sc.Network, by: str) -> None:
    with pytest.raises(MissingGradientError, match=rf"Net can't be differentiated, as '{by}' requires .*opaque_double"):
        sc.score(network, [(X, Y)], by=by, progress=False)


def test_other_errors_of_a_criterion_stay_as_they_are(network: sc.Network) -> None:
    def broken(context: object) -> dict[str, Tensor]:
        raise RuntimeError("of the user's own")

    with pytest.raises(RuntimeError, match="of the user's own"):
        sc.score(network, [(X, Y)], by=broken, progress=False)
    assert not issubclass(DataError, RuntimeError)
