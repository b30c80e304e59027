"""The layouts of tensors in memory: channels last, or first as torch has them by default."""

import torch
from torch import Tensor

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(tensor: Tensor) -> bool:
    """Whether an image or a kernel lies with its channels last.

    Where some axes have length 1 torch calls a tensor contiguous in both layouts; its strides tell which is meant.

    Example:
        >>> weight = torch.zeros(8, 4, 1, 1)
        >>> is_channels_last(weight), is_channels_last(weight.to(memory_format=torch.channels_last))
        (False, True)
    """
    layout = FORMATS.get(tensor.dim())
    if layout is None or not tensor.is_contiguous(memory_format=layout) or tensor.stride(1) != 1:
        return False
    return tensor.shape[1] == 1 or tensor.stride(-1) == tensor.shape[1]


def as_channels_last(tensor: Tensor) -> Tensor:
    """The tensor with its channels last, strides included, whatever the lengths of its axes."""
    return torch.empty_like(tensor, memory_format=FORMATS[tensor.dim()]).copy_(tensor)
