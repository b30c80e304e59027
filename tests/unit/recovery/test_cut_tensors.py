"""The memory that tensors of a cut model share with what a repair computed."""

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.recovery.cut_tensors import share_memory
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.surgery.recipe import recipe_of

pytestmark = untrained_networks


@pytest.mark.parametrize(
    ("value", "target"),
    [
        (torch.randn(3, 4), torch.zeros(3, 4)),
        (torch.randn(4, 3, 1, 1), torch.empty(4, 3, 1, 1, memory_format=torch.channels_last).zero_()),
        (torch.randn(4, 3, 2, 2), torch.zeros(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)),
        (torch.randn(4, 3).T, torch.zeros(3, 4)),
        (torch.randn(3, 4).double(), torch.zeros(3, 4)),
        (torch.randn(2, 3, 4)[1], torch.zeros(3, 4)),
    ],
)
def test_a_tensor_has_the_values_in_its_own_layout(value: torch.Tensor, target: torch.Tensor) -> None:
    tensor, stride, dtype = torch.nn.Parameter(target, requires_grad=False), target.stride(), target.dtype
    share_memory(tensor, value)
    assert torch.equal(tensor, value.to(dtype)) and (tensor.stride(), tensor.dtype) == (stride, dtype)
    assert torch.equal(target, torch.zeros_like(target))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weights_of_small_kernels_share_the_memory_in_any_format(memory_format: torch.memory_format) -> None:
    value = torch.randn(4, 3, 1, 1)
    tensor = torch.empty(4, 3, 1, 1, memory_format=memory_format)
    share_memory(tensor, value)
    assert tensor.data_ptr() == value.data_ptr()


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_repaired_copy_shares_the_memory_of_refitted_weights(has_bias: bool) -> None:
    """In the layout in which solves give a change, too: a copy of all weights would take the memory of a model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, has_bias), nn.ReLU(), nn.Linear(8, 4, has_bias)).eval()
    network = sc.trace(model, torch.randn(2, 6))
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.5})
    small = sc.cut(model, plan)
    cut_network = EmbeddedPrunedNetwork.of(small, network, recipe_of(model, plan))
    for layer in cut_network.layers:
        pruned_layer = PrunedLayer.of(layer, cut_network)
        assert pruned_layer is not None
        shape = (1, pruned_layer.features.shape[1] + has_bias, pruned_layer.outputs.shape[1])
        for change in (torch.randn(shape).double(), torch.randn(shape).double().mT.contiguous().mT):
            pruned_layer.write(cut_network, change)
            repaired = cut_network.copy_with_state(small)
            weight = repaired.get_parameter(layer.weight)
            assert weight.data_ptr() == cut_network.state.compact(layer.weight).data_ptr()
            assert weight.is_contiguous()
