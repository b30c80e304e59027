"""Conditions on tensors with symbolic lengths that are known without adding a condition to the program."""

from typing import Any

import torch
from torch import Tensor


def has_adjacent_columns(images: Tensor) -> bool:
    """Return whether the entries of a row are known to lie side by side in memory, and those of all channels not."""
    return is_same_length(images.stride(-1), 1) and not is_same_length(images.stride(1), 1)


def is_dense_channels_last(images: Tensor) -> bool:
    """Return whether images are known to lie in memory without gaps, with the entries of all channels side by side."""
    _, channels, _, width = images.shape
    strides, dense = images.stride()[1:], (1, channels * width, channels)
    return isinstance(channels, int) and channels > 1 and all(map(is_same_length, strides, dense))


def is_product(one: Tensor, other: Tensor, axis: int) -> bool:
    """Return whether two tensors have one type, and are known to be equally long where they are contracted."""
    return one.dtype == other.dtype and one.device == other.device and is_same_length(one.shape[-1], other.shape[axis])


def is_same_length(length: Any, other: Any) -> bool:
    """Return whether two lengths are one number or one symbol; asking torch would add a condition to the program."""
    if isinstance(length, int) and isinstance(other, int):
        return length == other
    return isinstance(length, torch.SymInt) and isinstance(other, torch.SymInt) and length.node.expr == other.node.expr
