"""Responses of layers to constant inputs, against the layers' own operators on constant images."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import secateur as sc
from secateur.coupling.consumers import ConstantSink
from secateur.data.batch import Batch
from secateur.masking.ablation import consumer_key, run_masked
from secateur.masking.constants import constant_response


def sink(groups: int, inner: int = 1) -> ConstantSink:
    return ConstantSink("weight", "bias", "bias", inner, groups, torch.arange(6))


@pytest.mark.parametrize("coalitions", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_of_constant_images(groups: int, coalitions: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4 // groups, 3, 2)
    inputs = torch.randn(coalitions, 4, dtype=torch.float64)
    inputs[0, 1] = 0
    images = inputs.float()[:, :, None, None].expand(-1, -1, 3, 2)
    expected = functional.conv2d(images, weight, groups=groups).flatten(1)
    response = constant_response(weight, sink(groups), inputs)
    assert response.dtype == torch.float64
    torch.testing.assert_close(response.float(), expected)


@pytest.mark.parametrize("coalitions", [1, 3])
def test_a_product_with_a_weight_of_inputs_and_outputs(coalitions: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(4, 6), torch.randn(coalitions, 4, dtype=torch.float64)
    torch.testing.assert_close(constant_response(weight, sink(1, inner=0), inputs), inputs @ weight.double())


@pytest.mark.parametrize("groups", [1, 2])
def test_ablated_units_count_as_their_means(groups: int) -> None:
    """A masked run of a convolution without padding is the run on activations in which means replace absent units."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 4, 3, groups=groups)).eval()
    x = torch.randn(2, 3, 6, 6)
    network = sc.trace(model, x)
    (consumer,) = (consumer for consumer in network.consumers if consumer.units.shape == (8,))
    mean = torch.randn(8)
    group = network.groups[0]
    mask = network.mask({group.name: torch.arange(group.size // 2)})
    with torch.no_grad():
        hidden = model[:2](x)
        present = mask[consumer.units][:, None, None]
        expected: Tensor = model[2](torch.where(present, hidden, mean[:, None, None]))
    result = run_masked(network, Batch((x,), {}), mask, {consumer_key(consumer): mean})
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
