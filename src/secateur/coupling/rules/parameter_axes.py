"""The same change of labels for an activation and, axis by axis, for a parameter."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.labels import Labels, Weight, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext


def label_tensors(value: Labels) -> tuple[Tensor, ...]:
    """Return the tensors of labels of a value: one of an activation, one for each axis of a parameter."""
    return value.labels if isinstance(value, Weight) else (value,)


def map_labels(value: Labels, change: Callable[[Tensor], Any]) -> Any:
    """Change the labels of an activation, or those of each axis of a parameter.

    Args:
        value: the labels.
        change: gives for a tensor of labels another one, or several.
    """
    if isinstance(value, Tensor):
        return change(value)
    changed_labels = [change(labels) for labels in value.labels]
    if isinstance(changed_labels[0], Tensor):
        return Weight(value.name, value.keys, tuple(changed_labels), is_plain=False)
    return tuple(Weight(value.name, value.keys, pieces, is_plain=False) for pieces in zip(*changed_labels, strict=True))


def narrow_axes(op: OpContext, value: Labels, dims: set[int], reason: str) -> Labels:
    """Keep the first index alone of some axes, and freeze units that lie along them for a reason."""
    if isinstance(value, Tensor):
        if labelled_axes(value) & dims:
            op.freeze(value, reason)
            value = frozen_labels(value.shape)
        return _first_index(value, dims)
    lies_across = [bool(labelled_axes(labels) & dims) for labels in value.labels]
    for labels, across in zip(value.labels, lies_across, strict=True):
        if across:
            op.freeze(labels, reason)
    other_axes = [
        (key, labels) for key, labels, across in zip(value.keys, value.labels, lies_across, strict=True) if not across
    ]
    if not other_axes:
        return _first_index(frozen_labels(value.shape), dims)
    keys, axes = zip(*other_axes, strict=True)
    return Weight(value.name, keys, tuple(_first_index(labels, dims) for labels in axes), is_plain=False)


def _first_index(labels: Tensor, dims: set[int]) -> Tensor:
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    return labels


def expand_labels(value: Labels, shape: torch.Size) -> Labels:
    """Repeat labels to a shape."""
    expanded_labels: Labels = map_labels(value, lambda labels: labels.expand(shape))
    return expanded_labels


def join_axes(value: Weight, other: Labels) -> Weight:
    """Return a parameter's labels with the axes of another of the same shape beside its own."""
    if isinstance(other, Tensor):
        return value
    return Weight(value.name, (*value.keys, *other.keys), (*value.labels, *other.labels), is_plain=False)
