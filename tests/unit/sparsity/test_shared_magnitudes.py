"""Layers of shared magnitudes compute what the dense ones do."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from secateur.sparsity.packed_layers.unified_kernels import unified_fast_network
from secateur.sparsity.packed_layers.unified_layers import SharedConvolution, SharedLinear
from secateur.sparsity.unification.blocks import (
    UNIFIED,
    Blocks,
    existing_labels,
    labels_of,
    project,
)


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_shared_magnitudes_compute_what_the_dense_layer_does(width: int, bias: bool) -> None:
    """Free, unified and pruned blocks; where runs do not divide the inputs; where nothing is free or all is gone."""
    torch.manual_seed(0)
    dense = nn.Linear(37, 20, bias=bias)
    blocks, weight = Blocks((20, 37), (1, width)), dense.weight.detach().clone()
    for pruned, unified in ((0.4, 0.4), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0)):
        placed = project(blocks, weight, labels_of(blocks, weight, pruned, unified))
        with torch.no_grad():
            dense.weight.copy_(placed)
        shared = SharedLinear(dense, width)
        assert shared.has_free_weights == (pruned + unified < 1)
        for x in (torch.randn(5, 37), torch.randn(2, 3, 37), torch.randn(37)):
            assert torch.allclose(copy.deepcopy(shared)(x), dense(x), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": "valid", "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    ],
)
def test_shared_convolutions_compute_what_the_dense_ones_do(options: dict[str, Any]) -> None:
    """Free, unified and pruned blocks; also where runs do not divide the channels."""
    torch.manual_seed(0)
    dense = nn.Conv2d(10, 6, **options)
    weight = dense.weight.detach().clone()
    for width, (pruned, unified) in itertools.product((2, 4), ((0.3, 0.4), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0))):
        blocks = Blocks(tuple(weight.shape), (1, width, 1, 1))
        with torch.no_grad():
            dense.weight.copy_(project(blocks, weight, labels_of(blocks, weight, pruned, unified)))
        shared = SharedConvolution(dense, width)
        if pruned + unified == 1:  # a magnitude for each block
            count = sum(len(shared.magnitudes(number).values()) for number in range(weight[0, 0].numel()))
            assert count == int((existing_labels(blocks, dense.weight) == UNIFIED).sum())
        for x in (torch.randn(3, 10, 9, 10), torch.randn(1, 10, 7, 7), torch.randn(10, 9, 9)):
            assert torch.allclose(copy.deepcopy(shared)(x), dense(x), atol=1e-5)


def test_a_network_takes_shared_magnitudes_only_where_they_are_faster_and_computes_the_same() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 600), nn.ReLU(), nn.Linear(600, 600, bias=False)]
    model, x = nn.Sequential(*layers).eval(), torch.randn(3, 1, 8, 8)
    shapes = {"0.weight": (1, 4), "2.weight": (1, 4), "4.weight": (1, 16)}
    with torch.no_grad():
        for name, shape in shapes.items():
            weight = model.get_parameter(name)
            blocks = Blocks(tuple(weight.shape), shape)
            weight.copy_(project(blocks, weight, labels_of(blocks, weight, 0.8, 0.2)))
    fast, chosen = unified_fast_network(model, x, shapes)
    runs = {"0.weight": (), "2.weight": (2, 4), "4.weight": (2, 4, 8)}
    assert all(chosen[name] in ("dense", *(f"shared {run}" for run in widths)) for name, widths in runs.items())
    assert isinstance(fast[2], SharedLinear) == (chosen["2.weight"] != "dense") and type(model[2]) is nn.Linear
    assert torch.allclose(fast(x), model(x), atol=1e-5)
    half, kernels = unified_fast_network(model.bfloat16(), x.bfloat16(), shapes)  # torch has no sparse products for it
    assert set(kernels.values()) == {"dense"} and half(x.bfloat16()).dtype == torch.bfloat16
