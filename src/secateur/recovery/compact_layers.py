"""Layers that compute kept positions alone, within programs of dense size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.operators import arguments
from secateur.graph.program import OpFn
from secateur.masking.linear_layers import LinearLayer

Axis = TypeVar("Axis")


@dataclass(frozen=True, eq=False)
class CompactLayer:
    """A linear layer or convolution that computes kept positions alone.

    Its input and its weight may hold what stays alone, or all.

    Args:
        layer: the layer.
        inputs, outputs: the positions that stay.
        groups: how many groups of a convolution stay.
        inner: of each of these outputs, the positions along the weight's second axis that stay (groups, ...).
        spreads: whether the result is spread out over all positions, zero where nothing stays.
    """

    layer: LinearLayer
    inputs: Tensor
    outputs: Tensor
    groups: int
    inner: Tensor
    spreads: bool = True

    @staticmethod
    def of(layer: LinearLayer, mask: Tensor) -> "CompactLayer | None":
        """Return the compact layer; None if all is kept, or its groups keep different numbers."""
        inputs, outputs = (mask[units].view(layer.groups, -1) for units in (layer.inputs, layer.outputs))
        if layer.argument != "input" or layer.inner != 1 or bool(inputs.all() & outputs.all()):
            return None
        groups = torch.nonzero(outputs.any(1)).flatten()
        is_rectangular = all(len(is_kept[groups].sum(1).unique()) == 1 for is_kept in (inputs, outputs))
        if not is_rectangular or not bool(inputs[groups].any()):
            return None
        kept_inputs = torch.nonzero(inputs[groups])[:, 1].view(len(groups), -1)
        where = (kept_inputs + groups[:, None] * inputs.shape[1]).flatten()
        return CompactLayer(layer, where, torch.nonzero(mask[layer.outputs]).flatten(), len(groups), kept_inputs)

    def result_axis(self, make: Callable[[int, Tensor, int], Axis]) -> Axis | None:
        """Return the kept positions of the result; None if all are kept."""
        length = len(self.layer.outputs)
        return make(self.layer.dim, self.outputs, length) if len(self.outputs) < length else None

    @property
    def weight_node(self) -> Node:
        """The placeholder of the weight."""
        node: Node = arguments(self.layer.node)["weight"]
        return node

    def is_cut_along(self, axes: Mapping[int, Tensor]) -> bool:
        """Return True if a weight that is cut along some axes is what the layer computes with.

        Args:
            axes: the positions that stay, by axis; all along others.
        """
        if self.layer.groups > 1 or len(self.weight_node.users) > 1:
            return False
        kept = (self.outputs, self.inner[0])
        lengths = (len(self.layer.outputs), len(self.layer.inputs))
        return axes.keys() <= {0, 1} and all(
            torch.equal(axes.get(axis, torch.arange(length)), positions)
            for axis, (positions, length) in enumerate(zip(kept, lengths, strict=True))
        )

    def weight_of(self, weight: Tensor) -> Tensor:
        """Select the kept entries of a weight; a compact weight is returned as it is."""
        if weight.shape[:2] == (len(self.outputs), self.inner.shape[1]):
            return weight
        outputs, inner = (index.to(weight.device) for index in (self.outputs, self.inner))
        weight = weight.index_select(0, outputs)
        if self.groups == 1:  # the gradient of a gather would keep an index and a weight
            return weight.index_select(1, inner[0])
        at = inner.repeat_interleave(len(outputs) // self.groups, 0)
        return weight.gather(1, at.view(*at.shape, *[1] * (weight.dim() - 2)).expand(*at.shape, *weight.shape[2:]))

    def __call__(self, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the layer on kept positions."""
        node, dim = self.layer.node, self.layer.dim
        names = [index.name for index in node.target._schema.arguments]  # type: ignore[union-attr]
        by_name = {**dict(zip(names, args, strict=False)), **kwargs}
        weight, x = self.weight_of(by_name["weight"]), by_name["input"]
        x = select_positions(x, dim, self.inputs) if len(self.inputs) < x.shape[dim] else x
        by_name |= {"input": x, "weight": weight}
        if by_name.get("bias") is not None:
            by_name["bias"] = by_name["bias"].index_select(0, self.outputs.to(weight.device))
        if "groups" in by_name:
            by_name["groups"] = self.groups
        result = target(**by_name)
        return spread_out(result, dim, self.outputs, len(self.layer.outputs)) if self.spreads else result


def select_positions(x: Tensor, dim: int, positions: Tensor) -> Tensor:
    """Select positions along an axis, in the memory format of the tensor."""
    positions = positions.to(x.device)
    if dim == 1 and x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous():
        return x.movedim(1, -1).index_select(-1, positions).movedim(-1, 1)
    return x.index_select(dim, positions)


def spread_out(x: Tensor, dim: int, positions: Tensor, length: int) -> Tensor:
    """Expand a tensor with some positions along an axis to all, zero elsewhere, in its memory format."""
    if len(positions) == length:
        return x
    shape, positions = list(x.shape), positions.to(x.device)
    shape[dim] = length
    if dim == 1 and x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous():
        last = x.movedim(1, -1)
        return last.new_zeros(*last.shape[:-1], length).index_copy(-1, positions, last).movedim(-1, 1)
    return x.new_zeros(shape).index_copy(dim, positions, x)
