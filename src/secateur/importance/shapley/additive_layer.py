"""The layer that reads the players, for many coalitions at once, as a sum of what each part of its input adds.

Without its nonlinearity, what a layer makes of a coalition is the sum of what each member adds by itself. Those parts
are computed once for an example, and every coalition is one row of a matrix product with them: a convolution of 3 x 3
then costs a ninth, a linear layer on a map of 3 x 3 as well. The prefix sums along an order are the same product with
a triangle of ones.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from secateur.coupling.network import Consumer
from secateur.graph.operators import arguments
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.masking.constants import sum_over_kernel

MOST_BYTES = 1 << 26


class AdditiveLayer(Protocol):
    """A layer whose input is the same for all coalitions but for who is absent."""

    @property
    def consumer(self) -> Consumer: ...

    @property
    def operand(self) -> Node:
        """The node whose value it reads."""
        ...

    @property
    def units(self) -> Tensor:
        """The unit of each part, (parts,), -1 for what is frozen."""
        ...

    @property
    def bias(self) -> Tensor | None: ...

    def by_part(self, entries: Tensor) -> Tensor:
        """What each entry of the input adds, (entries, outputs), summed by part. (parts, outputs)"""
        ...

    @property
    def bytes(self) -> int:
        """What the parts take for one example."""
        ...

    def parts(self, x: Tensor) -> Tensor:
        """What each part of one example (1, ...) adds. (parts, places x outputs)"""
        ...

    def unflattened(self, rows: Tensor, x: Tensor) -> Tensor:
        """Results (rows, places x outputs) with places and outputs apart, the outputs last."""
        ...

    def arranged(self, result: Tensor) -> Tensor:
        """The layer's result from that."""
        ...


@dataclass(frozen=True, eq=False)
class AdditiveConvolution:
    """A convolution of images in one group; a part is a channel."""

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
        return self.consumer.units

    def by_part(self, entries: Tensor) -> Tensor:
        return entries

    def parts(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[2:]
        patches = F.unfold(x, tuple(kernel), self.dilation, self.padding, self.stride)[0]
        columns = patches.view(x.shape[1], math.prod(kernel), -1).transpose(1, 2)  # (channels, places, kernel)
        matrix = self.weight.flatten(2).permute(1, 2, 0)  # (channels, kernel, filters)
        return torch.bmm(columns, matrix).flatten(1)

    def unflattened(self, rows: Tensor, x: Tensor) -> Tensor:
        return rows.view(len(rows), self._places(x, 0), self._places(x, 1), -1)

    def arranged(self, result: Tensor) -> Tensor:
        return result.permute(0, 3, 1, 2)

    def _places(self, x: Tensor, axis: int) -> int:
        reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
        return int((x.shape[2 + axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1)


@dataclass(frozen=True, eq=False)
class AdditiveLinear:
    """A linear layer on vectors; a part is a unit with all its entries."""

    consumer: Consumer
    operand: Node
    weight: Tensor
    bias: Tensor | None
    units: Tensor
    part: Tensor

    @property
    def bytes(self) -> int:
        return len(self.units) * self.weight.shape[0] * self.weight.element_size()

    def by_part(self, entries: Tensor) -> Tensor:
        nothing = entries.new_zeros(len(self.units), entries.shape[1])
        return nothing.index_add_(0, self.part, entries)

    def parts(self, x: Tensor) -> Tensor:
        return self.by_part((self.weight * x).T)

    def unflattened(self, rows: Tensor, x: Tensor) -> Tensor:
        return rows

    def arranged(self, result: Tensor) -> Tensor:
        return result


def additive_layer(program: Program, consumers: tuple[Consumer, ...], cut: int) -> AdditiveLayer | None:
    """The reader at the cut, if it is a layer that is cheaper as a sum of parts."""
    first = [consumer for consumer in consumers if program.position[consumer.node] == cut]
    given = arguments(first[0].node)
    if len(first) != 1 or first[0].argument != "input" or first[0].node.target not in ADDITIVE_LAYERS:
        return None
    fixed = program.fixed()
    plain = given["weight"] in fixed and (given["bias"] is None or given["bias"] in fixed)
    if not plain or program.batch_axis(given["input"].meta["val"]) != 0:
        return None
    bias = None if given["bias"] is None else fixed[given["bias"]]
    found = ADDITIVE_LAYERS[first[0].node.target](first[0], given, fixed[given["weight"]], bias)
    return found if found is not None and found.bytes <= MOST_BYTES else None


def _convolution(
    consumer: Consumer, given: Mapping[str, Any], weight: Tensor, bias: Tensor | None
) -> AdditiveLayer | None:
    if int(given["groups"]) != 1 or weight[0, 0].numel() == 1 or given["input"].meta["val"].dim() != 4:
        return None
    stride, padding, dilation = (tuple(int(n) for n in given[name]) for name in ("stride", "padding", "dilation"))
    stride, padding, dilation = (part * 2 if len(part) == 1 else part for part in (stride, padding, dilation))
    places = math.prod(_sizes(consumer.node)[1:])
    return AdditiveConvolution(
        consumer,
        given["input"],
        weight,
        bias,
        stride,
        padding,
        dilation,
        weight.shape[1] * places * weight.element_size(),
    )


def _linear(consumer: Consumer, given: Mapping[str, Any], weight: Tensor, bias: Tensor | None) -> AdditiveLayer | None:
    if given["input"].meta["val"].dim() != 2:
        return None
    units, part = torch.unique(consumer.units, return_inverse=True)
    return AdditiveLinear(consumer, given["input"], weight, bias, units, part.to(weight.device))


ADDITIVE_LAYERS = {torch.ops.aten.conv2d.default: _convolution, torch.ops.aten.linear.default: _linear}


def _sizes(node: Node) -> list[int]:
    """The shape of a node's value on the traced example."""
    shape = node.meta["val"].shape
    return [int(length.node.hint if isinstance(length, torch.SymInt) else length) for length in shape]


class ContributionSums:
    """A layer's results for tiles of coalitions.

    Args:
        summed: the layer.
        mean: of each entry of its input the mean that stands in an absent unit's place, (entries,), or None for zero.
        program: whose weights it reads.
    """

    def __init__(self, summed: AdditiveLayer, mean: Tensor | None, program: Program) -> None:
        self.summed = summed
        self.bias, self._constants = summed.bias, None
        self._last: tuple[tuple[int, int], Tensor] | None = None
        if mean is not None and summed.consumer.fold is not None:
            fold = summed.consumer.fold
            weight = program.state(fold.weight).detach()
            held = torch.where(summed.consumer.units >= 0, mean, torch.zeros((), dtype=mean.dtype)).to(weight.device)
            constants = summed.by_part(sum_over_kernel(weight, fold).T * held[:, None])
            self._constants = constants.to(weight.dtype)
            total = constants.sum(0).to(weight.dtype)
            self.bias = total if summed.bias is None else summed.bias + total

    def handler(self, x: Tensor, cell: int, positions: list[int], masks: Tensor) -> OpOverride:
        """The operator for one tile.

        Args:
            x: its input for the whole cell (examples, ...).
            cell: the cell's number.
            positions: the example of each row; rows of one example lie together.
            masks: which units take part (rows, units + 1).
        """
        members = masks[:, self.summed.units].to(x)

        def call(target: OpFn, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
            lengths = [len(list(run)) for _, run in itertools.groupby(positions)]
            examples = list(dict.fromkeys(positions))
            pieces = zip(members.split(lengths), examples, strict=True)
            products = [rows @ self._parts(x, cell, example) for rows, example in pieces]
            result = self.summed.unflattened(products[0] if len(products) == 1 else torch.cat(products), x)
            return self.summed.arranged(result if self.bias is None else result.add_(self.bias))

        return call

    def _parts(self, x: Tensor, cell: int, example: int) -> Tensor:
        """What each part of an example adds beyond its mean, the last example's kept. (parts, places x outputs)"""
        if self._last is None or self._last[0] != (cell, example):
            parts = self.summed.parts(x[example : example + 1])
            if self._constants is not None:
                places = self._constants.view(len(parts), 1, -1)
                parts = (parts.view(len(parts), -1, places.shape[2]) - places).flatten(1)
            self._last = (cell, example), parts
        return self._last[1]
