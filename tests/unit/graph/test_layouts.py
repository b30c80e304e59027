"""Networks whose tensors lie with channels last come back so."""

from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.graph.memory_formats import as_channels_last, is_channels_last

pytestmark = untrained_networks


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 1), nn.Conv2d(16, 16, 3, groups=16),
        nn.ReLU(), nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 3, 1, 1), (4, 1, 3, 3), (1, 4, 1, 1), (4, 3, 2, 2, 2)])
def test_layouts_are_told_apart_by_strides(shape: tuple[int, ...]) -> None:
    plain = torch.randn(shape)
    last = as_channels_last(plain)
    assert torch.equal(plain, last)
    assert is_channels_last(last)
    assert not is_channels_last(plain)
    assert not is_channels_last(torch.zeros(3, 4))


@pytest.mark.parametrize("is_last", [True, False])
def test_cut_networks_keep_their_layout(is_last: bool, tmp_path: Path) -> None:
    model, x = network(), torch.randn(40, 3, 12, 12)
    model = model.to(memory_format=torch.channels_last) if is_last else model
    strides = {name: tensor.stride() for name, tensor in model.named_parameters()}
    result = sc.prune(model, x, {"macs": 0.5}, progress=False)
    kernels = [tensor for tensor in result.model.parameters() if tensor.dim() == 4]
    assert len(kernels) == 4
    assert all(is_channels_last(tensor) == is_last for tensor in kernels)
    assert strides == {name: tensor.stride() for name, tensor in model.named_parameters()}
    result.save(tmp_path)
    fresh = network().to(memory_format=torch.channels_last) if is_last else network()
    loaded = sc.load(fresh, tmp_path)
    assert all(is_channels_last(t) == is_last for t in loaded.parameters() if t.dim() == 4)
    assert torch.equal(loaded(x), result.model(x))
