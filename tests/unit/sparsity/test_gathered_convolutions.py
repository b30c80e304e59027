"""Convolutions of the columns that are left compute what the dense ones do."""

from typing import Any

import pytest
import torch
from torch import nn

from secateur.sparsity.packed_layers.gathered_conv import GatheredConv2d, density, gathered


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": "same", "dilation": 2},
        {"stride": 2, "padding": (2, 1), "bias": False},
        {"padding": 1, "padding_mode": "reflect", "stride": (1, 2)},
        {"padding": "valid"},
    ],
)
def test_gathered_convolutions_compute_what_the_dense_one_does(options: dict[str, Any], groups: int) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(6, 6, 3, groups=groups, **options)
    with torch.no_grad():
        dense.weight.mul_(torch.rand(1, 6 // groups, 3, 3) < 0.25)
    x = torch.randn(2, 6, 11, 13)
    layer = GatheredConv2d(dense)
    assert layer.weight.shape[1] == round(density(dense) * 54 / groups)
    assert torch.allclose(layer(x), dense(x), atol=1e-5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert torch.allclose(layer(x[0]), dense(x[0]), atol=1e-5)
    model = nn.Sequential(dense, nn.Conv2d(6, 5, 3))
    small = gathered(model, below=0.5)
    assert isinstance(small[0], GatheredConv2d) and type(small[1]) is nn.Conv2d and type(model[0]) is nn.Conv2d
