"""Transposed convolutions as matrix products: every input channel has a kernel for each output channel."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer, constant_sink
from secateur.masking.parameter_copies import sole_parameter


class TransposedLayer(LinearLayer):
    """A transposed convolution; its weight is (inputs, outputs of a group, *kernel)."""

    @property
    def is_convolution(self) -> bool:
        """True, as the layer is a convolution."""
        return True

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the kernels of its groups, those of one output in a row. (groups, outputs, inputs * kernel)"""
        matrix: Tensor = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(2)
        return matrix

    def weight_of(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Convert the matrices of the groups (groups, outputs, inputs * kernel) to the shape of the weight."""
        kernels: Tensor = matrix.unflatten(2, (-1, self.kernel)).transpose(1, 2)  # (groups, inputs, outputs, kernel)
        weight: Tensor = kernels.reshape(like.shape)
        return weight

    def image(self, size: Sequence[int]) -> list[int]:
        """Return the size of the result: the norm is that of the convolution of which it is the transpose."""
        return [length * step for length, step in zip(size, self._strides(len(size)), strict=True)]

    @property
    def results_per_place(self) -> int:
        """The number of output positions to which one input position contributes."""
        weight = arguments(self.node)["weight"].meta["val"]
        return math.prod(self._strides(weight.dim() - 2))

    def _strides(self, rank: int) -> list[int]:
        stride = arguments(self.node)["stride"]
        strides = [stride] if isinstance(stride, int) else list(stride)
        return strides * rank if len(strides) == 1 else strides


def transposed_layers_of(network: Network) -> Iterator[TransposedLayer]:
    """Find every transposed convolution of batches whose weight is a parameter with no other use."""
    program = network.program
    units = {(member.tensor, member.axis): member.units for member in network.members}
    for node in program.nodes:
        if rule_of(node).layer != "transposed convolution":
            continue
        by_name = arguments(node)
        weight, groups = by_name["weight"], by_name["groups"]
        name = sole_parameter(program, weight)
        is_batched = by_name["input"].meta["val"].dim() == weight.meta["val"].dim()
        if name is None or not is_batched:
            continue
        shape = program.state(name).shape
        inputs = units.get((name, 0), torch.full(shape[:1], -1))
        if groups == 1:
            outputs = units.get((name, 1), torch.full(shape[1:2], -1))
        else:  # a group goes whole, with its outputs
            outputs = inputs.view(groups, -1)[:, :1].repeat(1, shape[1]).flatten()
        constant, kind = constant_sink(program, node, by_name["bias"], 1)
        yield TransposedLayer(node, "input", 1, name, 0, groups, constant, kind, inputs, outputs)
