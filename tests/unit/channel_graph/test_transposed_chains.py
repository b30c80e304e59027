"""Chains through transposed convolutions and enlarged maps."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from secateur.channel_graph.build import graph_of
from secateur.sparsity.lean import lean
from transposed_networks import TransposedDecoder


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1), (4, 3)])
def test_norms_of_transposed_convolutions_are_those_of_their_matrices(size: int, stride: int) -> None:
    """On a torus: what leaves at one side comes in at the other."""
    torch.manual_seed(0)
    layer, side = nn.ConvTranspose2d(2, 3, size, stride=stride, bias=False).double(), 4
    graph = graph_of(sc.trace(layer, torch.randn(1, 2, side, side, dtype=torch.float64)))
    images = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    for i, o in itertools.product(range(2), range(3)):
        wide = F.conv_transpose2d(images, layer.weight[i, o].detach()[None, None], stride=stride)
        wrapped = torch.zeros(len(images), side * stride, side * stride, dtype=torch.float64)
        for y, x in itertools.product(range(wide.shape[2]), range(wide.shape[3])):
            wrapped[:, y % (side * stride), x % (side * stride)] += wide[:, 0, y, x]
        norm = float(torch.linalg.matrix_norm(wrapped.flatten(1), 2))
        assert float(graph.blocks[0].values[o, i].exp()) == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_chains_go_through_transposed_convolutions_and_their_kernels_can_go(groups: int) -> None:
    model, x = TransposedDecoder(groups).eval(), torch.randn(2, 1, 8, 8)
    graph = graph_of(sc.trace(model, x))
    first, up, last = graph.blocks
    assert not graph.breaks and up.operator == "conv_transpose2d"
    per_group = 4 // groups
    rows = [
        list(range(first.first + per_group * group, first.first + per_group * (group + 1))) for group in range(groups)
    ]
    assert up.sources.tolist() == [row for row in rows for _ in range(6 // groups)]
    assert last.sources.tolist() == [list(range(up.first, up.first + 6))] * 2
    result = lean(model, x, keep=0.5)
    assert result.kernels[0] == 4 + 24 // groups
    assert 0 < result.kernels[1] < result.kernels[0]
    zeros = int((result.model.up.weight.flatten(2).abs().sum(2) == 0).sum())
    assert result.model.up.weight.shape[0] < 4 or zeros > 0
    assert result.model(x).shape == model(x).shape


def test_a_dead_channel_before_a_transposed_convolution_leaves_its_mean() -> None:
    """Every place of the result sees one of the kernel's four entries, so a constant adds their mean, on average."""
    model, x = TransposedDecoder().eval(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        model.first.weight[1] = 0
        model.first.bias[1] = 2
        model.up.weight[1] = torch.randn(6, 1, 1)  # the same at every place, so that the mean is exact
    result = lean(model, x, keep=1.0)
    assert result.model.first.weight.shape[0] == 3 and result.model.up.weight.shape[0] == 3
    assert torch.allclose(result.model(x), model(x), atol=1e-5)


def test_maps_that_are_laid_together_are_read_as_all_of_them() -> None:
    """A pixel shuffle lays four channels beside each other, so that one kernel reads all four."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 3, 3)).eval()
    x = torch.randn(2, 1, 6, 6)
    first, laid, last = graph_of(sc.trace(model, x)).blocks
    assert laid.sources.tolist() == [
        list(range(first.first, first.first + 4)),
        list(range(first.first + 4, first.first + 8)),
    ]
    assert not bool(laid.values.any()) and last.sources.tolist() == [[laid.first, laid.first + 1]] * 3
    assert torch.allclose(lean(model, x, 1.0).model(x), model(x), atol=1e-6)


def test_enlarged_maps_that_were_laid_together_come_from_all_of_them() -> None:
    """A vector that is unfolded to maps before they are enlarged."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3)
    ).eval()
    x = torch.randn(2, 3)
    result = lean(model, x, 1.0)
    assert result.kernels[1] == result.kernels[0] and torch.allclose(result.model(x), model(x), atol=1e-6)
