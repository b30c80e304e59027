"""Change labels alike, whether they are those of an activation or, axis by axis, those of a parameter."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight, labelled_axes
from secateur.coupling.rules.context import OpContext


def layerwise(value: Labels, change: Callable[[Tensor], Any]) -> Any:
    """Changes an activation's labels, or each axis' labels of a parameter."""
    if isinstance(value, Tensor):
        return change(value)
    changed = [change(layer) for layer in value.layers]
    if isinstance(changed[0], Tensor):
        return Weight(value.name, value.keys, tuple(changed), whole=False)
    return tuple(Weight(value.name, value.keys, parts, whole=False) for parts in zip(*changed, strict=True))


def narrowed(call: OpContext, value: Labels, dims: set[int], reason: str) -> Labels:
    """The first index alone of some axes; units that lie along them are frozen."""
    if isinstance(value, Tensor):
        if labelled_axes(value) & dims:
            call.freeze(value, reason)
            value = torch.zeros((), dtype=torch.long).expand(value.shape)
        return _first(value, dims)
    across = [bool(labelled_axes(layer) & dims) for layer in value.layers]
    for layer, crosses in zip(value.layers, across, strict=True):
        if crosses:
            call.freeze(layer, reason)
    beside = [(key, layer) for key, layer, bad in zip(value.keys, value.layers, across, strict=True) if not bad]
    if not beside:
        return _first(torch.zeros((), dtype=torch.long).expand(value.shape), dims)
    keys, layers = zip(*beside, strict=True)
    return Weight(value.name, keys, tuple(_first(layer, dims) for layer in layers), whole=False)


def _first(labels: Tensor, dims: set[int]) -> Tensor:
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    return labels


def grown(value: Labels, shape: torch.Size) -> Labels:
    """Repeated to a shape."""
    repeated: Labels = layerwise(value, lambda labels: labels.expand(shape))
    return repeated


def with_layers(value: Weight, other: Labels) -> Weight:
    """A parameter's labels with the axes of another of the same shape beside its own."""
    if isinstance(other, Tensor):
        return value
    return Weight(value.name, (*value.keys, *other.keys), (*value.layers, *other.layers), whole=False)
