"""Layers that compute what stays alone, within programs in which what is cut is silent."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.graph.program import OpFn
from secateur.masking.linear_layers import LinearLayer


@dataclass(frozen=True, eq=False)
class CompactLayer:
    """A linear layer or convolution that computes what stays alone.

    Args:
        layer: the layer.
        inputs, outputs: the positions that stay.
        groups: how many groups of a convolution stay.
        inner: of each of these outputs, the positions along the weight's second axis that stay (groups, ...).
    """

    layer: LinearLayer
    inputs: Tensor
    outputs: Tensor
    groups: int
    inner: Tensor

    @staticmethod
    def of(layer: LinearLayer, mask: Tensor) -> "CompactLayer | None":
        """None where all stays, or where its groups keep different numbers."""
        inputs, outputs = (mask[each].view(layer.groups, -1) for each in (layer.inputs, layer.outputs))
        groups = torch.nonzero(outputs.any(1)).flatten()
        alike = all(len(each[groups].sum(1).unique()) == 1 for each in (inputs, outputs))
        if layer.argument != "input" or layer.inner != 1 or not alike or bool(mask[layer.inputs].all() & outputs.all()):
            return None
        if not bool(inputs[groups].any()):
            return None
        inside = torch.nonzero(inputs[groups])[:, 1].view(len(groups), -1)
        where = (inside + groups[:, None] * inputs.shape[1]).flatten()
        return CompactLayer(layer, where, torch.nonzero(mask[layer.outputs]).flatten(), len(groups), inside)

    def __call__(self, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        node, dim = self.layer.node, self.layer.dim
        names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        inputs, outputs, inner = (each.to(given["weight"].device) for each in (self.inputs, self.outputs, self.inner))
        weight = given["weight"].index_select(0, outputs)
        at = inner.repeat_interleave(len(outputs) // self.groups, 0)
        weight = weight.gather(1, at.view(*at.shape, *[1] * (weight.dim() - 2)).expand(*at.shape, *weight.shape[2:]))
        given |= {"input": given["input"].index_select(dim, inputs), "weight": weight}
        if given.get("bias") is not None:
            given["bias"] = given["bias"].index_select(0, outputs)
        if "groups" in given:
            given["groups"] = self.groups
        result = target(**given)
        shape = list(result.shape)
        shape[dim] = len(self.layer.outputs)
        return result.new_zeros(shape).index_copy(dim, outputs, result)
