"""Layers as matrices: rows of the input times the matrix are the layer's results, by torch's own operators."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.batch_norms import norm_behind
from secateur.masking.layer_rows import WindowAxis, WindowPositions, padding_pairs, with_ones
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.masking.transposed_layers import transposed_layers_of

IMAGES, SERIES, TOKENS = torch.randn(3, 4, 9, 8), torch.randn(3, 4, 11), torch.randn(3, 5, 4)


class Flattened(nn.Module):
    """A linear layer on the rows of all examples: (examples * tokens, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.flatten(0, 1)).relu()).unflatten(0, x.shape[:2])


def network_of(layer: nn.Module, example: Tensor) -> sc.Network:
    """A network in which a layer stands behind one that makes its units, and before one that reads its own."""
    torch.manual_seed(0)
    if isinstance(layer, nn.Linear):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), layer, nn.ReLU(), nn.Linear(layer.out_features, 2))
    else:
        convolution = nn.Conv1d if example.dim() == 3 else nn.Conv2d
        model = nn.Sequential(convolution(4, 4, 1), nn.ReLU(), layer, nn.ReLU(), convolution(layer.out_channels, 2, 1))
    return sc.trace(model.eval(), example)


def check_products(layer: LinearLayer, network: sc.Network) -> None:
    """Check rows, matrix, results and kept features of a layer against the layer's own run."""
    values = network.program.bind(network.example)
    by_name = arguments(layer.node)
    source = by_name[layer.argument]
    with torch.no_grad():
        values = {**network.program.fixed(), **values}
        values = network.program.run(
            values, network.program.first, len(network.program.nodes) - 1, {}, keep={source, layer.node}
        )
        x, y = values[source], values[layer.node]
        weight = network.program.state(layer.weight)
        bias = network.program.state(layer.constant) if layer.kind == "bias" else torch.zeros(len(layer.outputs))
        matrix = layer.matrix(weight)
        assert torch.equal(layer.weight_of(matrix, weight), weight)
        assert matrix.shape[0] == layer.groups
        assert matrix.shape[2] == layer.features_of_group
        examples = network.example.size
        assert examples is not None
        positions = layer.positions(x, examples)
        rows = positions.rows(torch.arange(positions.count), layer.groups)  # (examples * positions, groups, features)
        products = torch.einsum("rgf,gof->rgo", rows, matrix).flatten(1) + bias
        torch.testing.assert_close(products, layer.results(y, examples).flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "example"),
    [
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), IMAGES),
        (nn.Conv2d(4, 6, 3, dilation=(2, 1), padding="same"), IMAGES),
        (nn.Conv2d(4, 6, (4, 2), padding="same"), IMAGES),
        (nn.Conv2d(4, 8, 3, groups=2, padding="valid"), IMAGES),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), IMAGES),
        (nn.Conv1d(4, 6, 3, stride=2), SERIES),
        (nn.Linear(4, 6), TOKENS),
        (nn.Linear(4, 6), TOKENS[:, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_rows_times_the_matrix_are_the_results(layer: nn.Module, example: Tensor) -> None:
    network = network_of(layer, example)
    layers = {other.name: other for other in layers_of(network)}
    assert {"2", "4"} <= layers.keys()
    check_products(layers["2"], network)
    check_products(layers["4"], network)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 3, "dilation": (2, 1), "padding": "same"},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
    ],
)
@pytest.mark.parametrize("examples", [1, 3])
def test_rows_are_the_same_in_any_layout(options: dict[str, Any], groups: int, examples: int) -> None:
    network = network_of(nn.Conv2d(4, 8, groups=groups, **options), IMAGES)
    (layer,) = [other for other in layers_of(network) if other.name == "2"]
    x = torch.randn(examples + 2, 4, 9, 8)[1:-1]  # within a larger tensor
    channels_last = torch.randn(examples + 2, 4, 9, 8).to(memory_format=torch.channels_last)[1:-1].copy_(x)
    plain, by_channels = layer.positions(x, examples), layer.positions(channels_last, examples)
    assert x.stride() != channels_last.stride()
    chosen = torch.randperm(plain.count)[: plain.count // 2]
    assert torch.equal(plain.rows(chosen, groups), by_channels.rows(chosen, groups))


@pytest.mark.parametrize(
    "images",
    [
        torch.randn(2, 7, 6, 3).permute(0, 3, 2, 1),
        torch.randn(1, 1, 6, 7).expand(2, 3, 6, 7),
        torch.randn(2, 3, 12, 7)[:, :, ::2],
        torch.randn(2, 3, 6, 7, 4),
        torch.randn(2, 3, 6, 7, 4).to(memory_format=torch.channels_last_3d),
    ],
    ids=["permuted", "expanded", "every second line", "volumes", "volumes by channels"],
)
def test_windows_are_those_of_the_convolution_wherever_they_lie_in_memory(images: Tensor) -> None:
    rank = images.dim() - 2
    axes = [WindowAxis(size, 2 + at, 1 + at % 2, 2 - at % 2, (at, at)) for at, size in enumerate(images.shape[2:])]
    positions, weight = WindowPositions(images, axes), torch.randn(5, 3, *(axis.kernel for axis in axes))
    chosen = torch.randperm(positions.count)[:7]
    convolve = nn.functional.conv3d if rank == 3 else nn.functional.conv2d
    by_axis = [(axis.stride, axis.padding[0], axis.dilation) for axis in axes]
    outputs = convolve(images, weight, None, *zip(*by_axis, strict=True))
    expected = outputs.flatten(2)[:, :, chosen]
    products = positions.rows(chosen, 1)[:, 0] @ weight.flatten(1).t()
    torch.testing.assert_close(products, expected.transpose(1, 2).flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_windows_with_ones_are_copied_in_one_step(groups: int, padding: int) -> None:
    images = torch.randn(2, 3, 6, 7)
    positions = WindowPositions(images, [WindowAxis(size, 3, 1, 1, (padding, padding)) for size in (6, 7)])
    chosen = torch.arange(positions.count)
    assert torch.equal(positions.rows(chosen, groups, True), with_ones(positions.rows(chosen, groups)))


def test_rows_of_flattened_examples_are_those_of_each() -> None:
    torch.manual_seed(0)
    network = sc.trace(Flattened().eval(), TOKENS)
    (layer,) = [other for other in layers_of(network) if other.name == "last"]
    check_products(layer, network)
    x = torch.arange(15.0)[:, None]
    assert torch.equal(layer.positions(x, 3).rows(torch.tensor([1]), 1).flatten(), torch.tensor([1.0, 6.0, 11.0]))


class Product(nn.Module):
    """A product with a weight (inputs, outputs), as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_a_weight_of_inputs_and_outputs_is_transposed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Product(), nn.ReLU(), nn.Linear(6, 2)).eval()
    network = sc.trace(model, TOKENS[:, 0])
    (layer,) = [other for other in layers_of(network) if other.name == "2"]
    assert layer.inner == 0
    check_products(layer, network)


class OtherLayers(nn.Module):
    """Before a depthwise layer one whose weight is computed; a layer that reads a vector, the same for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)
        self.doubled, self.vector = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.Parameter(torch.randn(5))
        self.scale = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * torch.conv2d(x, self.doubled * 2).sigmoid() * self.scale(self.vector)[:, None, None]
        return self.last(self.depthwise(h))


def test_layers_with_rows_and_a_weight_of_their_own_are_listed_in_the_order_of_the_run() -> None:
    torch.manual_seed(0)
    network = sc.trace(OtherLayers().eval(), torch.randn(2, 3, 6, 6))
    layers = layers_of(network)
    assert [layer.name for layer in layers] == ["first", "depthwise", "last"]
    assert [layer.dim for layer in layers] == [1, 1, 1]
    assert not layers[1].reads


@pytest.mark.parametrize("groups", [1, 2])
def test_the_matrix_of_a_transposed_convolution_is_that_of_its_kernels(groups: int) -> None:
    """One output in a row: its kernels from all inputs of its group."""
    network = network_of(nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1), groups=groups), IMAGES)
    (layer,) = transposed_layers_of(network)
    weight = network.program.state("2.weight")  # (inputs, outputs of a group, *kernel)
    matrix = layer.matrix(weight)
    outputs, inputs = 6 // groups, 4 // groups
    assert matrix.shape == (groups, outputs, inputs * 6)
    for group in range(groups):
        for output in range(outputs):
            kernels = weight[group * inputs : (group + 1) * inputs, output]
            assert torch.equal(matrix[group, output], kernels.flatten())
    assert torch.equal(layer.weight_of(matrix, weight), weight)
    assert layer.image([5, 7]) == [10, 7]
    assert layer.results_per_place == 2
    of_group = network["2" if groups == 1 else "0"]
    owned = layer.outputs if groups == 1 else layer.inputs
    assert set(owned.tolist()) == set(range(of_group.offset, of_group.offset + of_group.size))
    assert len(layer.inputs) == 4
    assert len(layer.outputs) == 6


def test_units_without_a_number_are_those_of_frozen_axes() -> None:
    """The images are no units, and neither are the outputs of the last transposed convolution."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2)).eval()
    first, last = transposed_layers_of(sc.trace(model, torch.randn(2, 3, 5, 5)))
    assert first.inputs.tolist() == [-1] * 3
    assert first.outputs.tolist() == last.inputs.tolist() == list(range(6))
    assert last.outputs.tolist() == [-1] * 2


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("same", [(0, 0), (0, 1), (1, 1), (2, 2)]), ("valid", [(0, 0)] * 4), (2, [(2, 2)] * 4), ([0, 1, 2, 3], None)],
)
def test_padding_by_axis(padding: object, expected: list[tuple[int, int]] | None) -> None:
    pairs = padding_pairs(padding, [1, 2, 3, 5])
    assert pairs == (expected or [(0, 0), (1, 1), (2, 2), (3, 3)])


class TwoReaders(nn.Module):
    """A convolution with a batch norm behind, alone or beside another reader."""

    def __init__(self, norm: nn.Module, has_other: bool) -> None:
        super().__init__()
        self.first, self.norm, self.last, self.has_other = nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1), has_other

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.norm(h) + h if self.has_other else self.norm(h))


@pytest.mark.parametrize(
    ("norm", "has_other", "is_behind"),
    [
        (nn.BatchNorm2d(4), False, True),
        (nn.BatchNorm2d(4), True, False),
        (nn.BatchNorm2d(4, track_running_stats=False), False, False),
        (nn.ReLU(), False, False),
    ],
)
def test_the_norm_behind_a_layer_is_a_batch_norm_with_statistics_that_alone_reads_it(
    norm: nn.Module, has_other: bool, is_behind: bool
) -> None:
    network = sc.trace(TwoReaders(norm, has_other).eval(), torch.randn(2, 3, 5, 5))
    first = next(node for node in network.program.nodes if rule_of(node).layer == "convolution")
    assert (norm_behind(first) is not None) == is_behind
