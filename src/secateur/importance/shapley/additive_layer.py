"""The consumer of the players, for many coalitions at once, as a sum of the contributions of its input's channels.

Without its nonlinearity, a layer's result for a coalition is the sum of each member's contribution. Contributions are
computed once for an example, and every coalition is one row of a matrix product with them: a convolution of 3 x 3 then
costs a ninth, a linear layer on a map of 3 x 3 as well. The prefix sums along an order are the same product with a
triangle of ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from secateur.coupling.consumers import Consumer
from secateur.graph.operators import arguments
from secateur.graph.program import Program

MAX_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class AdditiveConvolution:
    """A convolution of images in one group, as a sum over channels.

    Args:
        consumer: the layer as a consumer of the players.
        operand: the node whose value it reads.
        weight: (filters, channels, height, width).
        bias: (filters,) or None.
        stride, padding, dilation: of height and width.
        bytes: the bytes of the contributions of one example.
    """

    consumer: Consumer
    operand: Node
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    bytes: int

    @property
    def units(self) -> Tensor:
        """The unit of each channel, (channels,), -1 where it is frozen."""
        return self.consumer.units

    def sum_by_channel(self, entries: Tensor) -> Tensor:
        """Return the sums of each channel's entries (channels, outputs), which are the entries themselves."""
        return entries

    def contributions(self, x: Tensor) -> Tensor:
        """Return the contribution of each channel of one example (1, ...), (channels, positions x outputs)."""
        kernel = self.weight.shape[2:]
        patches = F.unfold(x, tuple(kernel), self.dilation, self.padding, self.stride)[0]
        columns = patches.view(x.shape[1], math.prod(kernel), -1).transpose(1, 2)  # (channels, positions, kernel)
        matrix = self.weight.flatten(2).permute(1, 2, 0)  # (channels, kernel, filters)
        return torch.bmm(columns, matrix).flatten(1)

    def unflatten(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return results (rows, positions x outputs) as (rows, height, width, outputs)."""
        return rows.view(len(rows), self._output_length(x, 0), self._output_length(x, 1), -1)

    def layer_result(self, result: Tensor) -> Tensor:
        """Return the layer's result (rows, outputs, height, width) from (rows, height, width, outputs)."""
        return result.permute(0, 3, 1, 2)

    def _output_length(self, x: Tensor, axis: int) -> int:
        reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
        return int((x.shape[2 + axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1)


@dataclass(frozen=True, eq=False)
class AdditiveLinear:
    """A linear layer on vectors, as a sum over units with all their entries.

    Args:
        consumer: the layer as a consumer of the players.
        operand: the node whose value it reads.
        weight: (outputs, entries).
        bias: (outputs,) or None.
        units: the unit of each channel, (channels,), -1 for all that is frozen.
        channel_of_entry: the channel of each entry, (entries,); None where each entry is a channel of its own.
    """

    consumer: Consumer
    operand: Node
    weight: Tensor
    bias: Tensor | None
    units: Tensor
    channel_of_entry: Tensor | None

    @property
    def bytes(self) -> int:
        """The bytes of the contributions of one example."""
        return len(self.units) * self.weight.shape[0] * self.weight.element_size()

    def sum_by_channel(self, entries: Tensor) -> Tensor:
        """Return the sums of each channel's entries (entries, outputs), (channels, outputs)."""
        if self.channel_of_entry is None:
            return entries
        zeros = entries.new_zeros(len(self.units), entries.shape[1])
        return zeros.index_add_(0, self.channel_of_entry, entries)

    def contributions(self, x: Tensor) -> Tensor:
        """Return the contribution of each channel of one example (1, entries), (channels, outputs)."""
        if self._weight_of_channels is None:
            return self.sum_by_channel((self.weight * x).T)
        return torch.bmm(self._weight_of_channels, x.reshape(len(self.units), -1, 1)).squeeze(2)

    @cached_property
    def _weight_of_channels(self) -> Tensor | None:
        """The weight of each channel (channels, outputs, entries), if all have as many entries, side by side."""
        count = self.weight.shape[1] // len(self.units)
        regular = torch.arange(len(self.units), device=self.weight.device).repeat_interleave(count)
        if self.channel_of_entry is not None and not torch.equal(self.channel_of_entry, regular):
            return None
        by_channel: Tensor = self.weight.unflatten(1, (len(self.units), count))
        return by_channel.movedim(0, 1).contiguous()

    def unflatten(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return results (rows, outputs) as they are."""
        return rows

    def layer_result(self, result: Tensor) -> Tensor:
        """Return the layer's result, which is the result itself."""
        return result


AdditiveLayer = AdditiveConvolution | AdditiveLinear


def additive_layer(program: Program, consumers: tuple[Consumer, ...], cut: int) -> AdditiveLayer | None:
    """Return the consumer at the cut, if it is a layer that is cheaper as a sum of contributions."""
    first_consumers = [consumer for consumer in consumers if program.position[consumer.node] == cut]
    operands = arguments(first_consumers[0].node)
    if (
        len(first_consumers) != 1
        or first_consumers[0].argument != "input"
        or first_consumers[0].node.target not in ADDITIVE_LAYERS
    ):
        return None
    constants = program.fixed()
    weight, bias = operands["weight"], operands["bias"]
    has_constants = weight in constants and (bias is None or bias in constants)
    if not has_constants or not _has_example_rows(program, operands["input"]):
        return None
    build = ADDITIVE_LAYERS[first_consumers[0].node.target]
    layer = build(first_consumers[0], operands, constants[weight], None if bias is None else constants[bias])
    return layer if layer is not None and layer.bytes <= MAX_BYTES else None


def _has_example_rows(program: Program, node: Node) -> bool:
    """Return whether the first axis of a value has one entry per example: frames may be folded into it."""
    shape = node.meta["val"].shape
    return program.batch_axis(node.meta["val"]) == 0 and str(shape[0]) == program.batched


def _convolution(
    consumer: Consumer, operands: Mapping[str, Any], weight: Tensor, bias: Tensor | None
) -> AdditiveLayer | None:
    if int(operands["groups"]) != 1 or weight[0, 0].numel() == 1 or operands["input"].meta["val"].dim() != 4:
        return None
    settings = [tuple(int(n) for n in operands[name]) for name in ("stride", "padding", "dilation")]
    stride, padding, dilation = (setting * 2 if len(setting) == 1 else setting for setting in settings)
    positions = math.prod(_traced_shape(consumer.node)[1:])
    size = weight.shape[1] * positions * weight.element_size()
    return AdditiveConvolution(consumer, operands["input"], weight, bias, stride, padding, dilation, size)


def _linear(
    consumer: Consumer, operands: Mapping[str, Any], weight: Tensor, bias: Tensor | None
) -> AdditiveLayer | None:
    if operands["input"].meta["val"].dim() != 2:
        return None
    units, channels = torch.unique(consumer.units, return_inverse=True)
    is_single = torch.equal(channels, torch.arange(len(channels), device=channels.device))
    channel_of_entry = None if is_single else channels.to(weight.device)
    return AdditiveLinear(consumer, operands["input"], weight, bias, units, channel_of_entry)


ADDITIVE_LAYERS = {torch.ops.aten.conv2d.default: _convolution, torch.ops.aten.linear.default: _linear}


def _traced_shape(node: Node) -> list[int]:
    """Return the shape of a node's value on the traced example."""
    shape = node.meta["val"].shape
    return [int(length.node.hint if isinstance(length, torch.SymInt) else length) for length in shape]
