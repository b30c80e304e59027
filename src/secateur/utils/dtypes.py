"""Floating-point types for accurate sums."""

import torch
from torch import Tensor


def widest_type(tensor: Tensor) -> torch.dtype:
    """Return the widest floating-point type that the tensor's device supports."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def at_least_single(tensor: Tensor) -> Tensor:
    """Convert a tensor of half precision to single precision."""
    return tensor if torch.finfo(tensor.dtype).bits >= 32 else tensor.float()


def to_widest(tensor: Tensor) -> Tensor:
    """Convert a tensor to the widest floating-point type that its device supports."""
    return tensor.to(widest_type(tensor))
