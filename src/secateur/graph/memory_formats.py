"""Memory formats of tensors: channels last or channels first."""

import torch
from torch import Tensor

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(tensor: Tensor) -> bool:
    """Return whether an image or a kernel is stored with its channels last.

    Where some axes have length 1 torch calls a tensor contiguous in both layouts; its strides tell which is meant.

    Examples:
        >>> weight = torch.zeros(8, 4, 1, 1)
        >>> is_channels_last(weight), is_channels_last(weight.to(memory_format=torch.channels_last))
        (False, True)
    """
    layout = FORMATS.get(tensor.dim())
    if layout is None or not tensor.is_contiguous(memory_format=layout) or tensor.stride(1) != 1:
        return False
    return tensor.shape[1] == 1 or tensor.stride(-1) == tensor.shape[1]


def as_channels_last(tensor: Tensor) -> Tensor:
    """Convert a tensor to channels last, strides included, for any axis lengths."""
    return torch.empty_like(tensor, memory_format=FORMATS[tensor.dim()]).copy_(tensor)
