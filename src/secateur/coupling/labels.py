"""Tensors of labels: for each entry of a tensor the integer that says which unit it belongs to; 0 is frozen.

Labels of activations repeat along most axes (batch, space), where they are kept as expanded views, so that the cost of
an operator is that of its channels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

ParameterAxis = tuple[str, int]


@dataclass(frozen=True)
class Weight:
    """The labels of a parameter or buffer: one tensor of labels for each of its axes.

    A weight that is computed from several parameters has the axes of all of them.

    Args:
        name: the parameter's name.
        keys: for each tensor of labels the parameter and the axis that its labels are those of.
        labels: tensors of labels, all in the shape of the value.
        is_plain: whether the axes of the value are still those of the parameter itself.
    """

    name: str
    keys: tuple[ParameterAxis, ...]
    labels: tuple[Tensor, ...]
    is_plain: bool = True

    @property
    def shape(self) -> torch.Size:
        """The shape of the value."""
        return self.labels[0].shape


Labels = Tensor | Weight


def frozen_labels(shape: Iterable[int]) -> Tensor:
    """Return label 0 in a shape, without memory."""
    return torch.zeros((), dtype=torch.long).expand(tuple(shape))


def broadcast_labels(labels: Tensor, dim: int, shape: Iterable[int]) -> Tensor:
    """Repeat the labels along one axis (size of dim,) over the other axes of a shape, without memory."""
    shape = tuple(shape)
    view = [1] * len(shape)
    view[dim] = -1
    return labels.view(view).expand(shape)


def squeeze_expanded(labels: Tensor, keep: int | None = None) -> Tensor:
    """Narrow the axes of an expanded view to length 1.

    Args:
        labels: a tensor of labels.
        keep: an axis that is left as it is.
    """
    kept = None if keep is None else keep % max(labels.dim(), 1)
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and labels.stride(dim) == 0 and dim != kept:
            labels = labels.narrow(dim, 0, 1)
    return labels


def labelled_axes(labels: Tensor) -> set[int]:
    """Return the axes along which labels differ."""
    narrow = squeeze_expanded(labels)
    long_axes = [dim for dim in range(narrow.dim()) if narrow.shape[dim] > 1 and narrow.numel()]
    axes = {dim for dim in long_axes if _differs_at_origin(narrow, dim)}
    for dim in long_axes:  # an axis along which all labels are the same is not read again for the next one
        if dim not in axes and bool((narrow != narrow.narrow(dim, 0, 1)).any()):
            axes.add(dim)
        elif dim not in axes:
            narrow = narrow.narrow(dim, 0, 1)
    return axes


def _differs_at_origin(labels: Tensor, dim: int) -> bool:
    """Return whether labels differ along an axis at the first index of all others, which mostly decides it."""
    line = labels[tuple(slice(None) if other == dim else 0 for other in range(labels.dim()))]
    return bool((line != line[0]).any())


def entries_along(labels: Tensor, dim: int) -> Tensor:
    """Return the labels along an axis, where they are the same along all others, (size of dim,)."""
    for other in range(labels.dim()):
        if other != dim % labels.dim():
            labels = labels.narrow(other, 0, 1)
    return labels.reshape(-1).clone()


def determines(a: Tensor, b: Tensor) -> bool:
    """Return whether the labels of one tensor follow from those of the other that they meet."""
    pairs = unique_pairs(a, b).shape[1]
    return pairs == max(len(torch.unique(squeeze_expanded(a))), len(torch.unique(squeeze_expanded(b))))


def unique_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return the distinct pairs of labels that meet when two tensors are broadcast together, (2, pairs)."""
    a, b = torch.broadcast_tensors(a, b)
    for dim in range(a.dim()):
        if a.shape[dim] > 1 and a.stride(dim) == 0 and b.stride(dim) == 0:
            a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
    base = int(max(a.max(), b.max())) + 1 if a.numel() else 1
    codes = torch.unique(a.reshape(-1) * base + b.reshape(-1))
    return torch.stack([codes // base, codes % base])
