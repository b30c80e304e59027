"""Floating-point types for accurate sums."""

import torch
from torch import Tensor


def widest_type(tensor: Tensor) -> torch.dtype:
    """Return the widest floating-point type that the tensor's device supports, complex for complex numbers."""
    widest = torch.float32 if tensor.device.type == "mps" else torch.float64
    return widest.to_complex() if tensor.is_complex() else widest


def at_least_single(tensor: Tensor) -> Tensor:
    """Convert a tensor of half precision to single precision."""
    return tensor if torch.finfo(tensor.dtype).bits >= 32 else tensor.float()


def to_widest(tensor: Tensor) -> Tensor:
    """Convert a tensor to the widest floating-point type that its device supports."""
    return tensor.to(widest_type(tensor))


def as_real(tensor: Tensor) -> Tensor:
    """Return a tensor of complex numbers with a last axis of real and imaginary parts, and any other one as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def real_product(first: Tensor, second: Tensor) -> Tensor:
    """Multiply elementwise; of complex numbers, the products of real and of imaginary parts are added up.

    Examples:
        >>> real_product(torch.tensor(1 + 2j), torch.tensor(3 + 4j))
        tensor(11.)
    """
    return (first.conj() * second).real if first.is_complex() else first * second
