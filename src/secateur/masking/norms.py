"""Normalisations whose statistics are those of the kept units."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def _normalised(x: Tensor, factor: Tensor, dims: list[int], eps: float) -> Tensor:
    """Normalize to mean 0 and variance 1 over some axes the entries whose factor is 1; the others become 0."""
    count = factor.expand(x.shape).sum(dims, keepdim=True).clamp_min(1)
    centred = (x - (x * factor).sum(dims, keepdim=True) / count) * factor
    variance = centred.square().sum(dims, keepdim=True) / count
    return centred * torch.rsqrt(variance + eps)


def _layer_norm(
    factor: Tensor, input: Tensor, normalized_shape: list[int], weight: Any, bias: Any, eps: float, **_: Any
) -> Tensor:
    dims = list(range(input.dim() - len(normalized_shape), input.dim()))
    y = _normalised(input, factor, dims, eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _group_norm(factor: Tensor, input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float, **_: Any) -> Tensor:
    y = _normalised(input, factor, list(range(1, input.dim())), eps)
    channels = (1, -1, *[1] * (input.dim() - 2))
    y = y if weight is None else y * weight.view(channels)
    return y if bias is None else y + bias.view(channels)


def _rms_norm(
    factor: Tensor, input: Tensor, normalized_shape: list[int], weight: Any, eps: float | None, **_: Any
) -> Tensor:
    dims = list(range(input.dim() - len(normalized_shape), input.dim()))
    count = factor.expand(input.shape).sum(dims, keepdim=True).clamp_min(1)
    square = (input * factor).square().sum(dims, keepdim=True) / count
    small = torch.finfo(input.dtype).eps if eps is None else eps
    y = input * factor * torch.rsqrt(square + small)
    return y if weight is None else y * weight


def _mean(factor: Tensor, self: Tensor, dim: Any, keepdim: bool = False, **_: Any) -> Tensor:
    dims = [dim] if isinstance(dim, int) else dim or list(range(self.dim()))
    count = factor.expand(self.shape).sum(dims, keepdim=keepdim).clamp_min(1)
    return (self * factor).sum(dims, keepdim=keepdim) / count


def _variance(
    factor: Tensor,
    self: Tensor,
    dim: Any,
    keepdim: bool = False,
    unbiased: bool = True,
    correction: Any = None,
    **_: Any,
) -> Tensor:
    dims = [dim] if isinstance(dim, int) else dim or list(range(self.dim()))
    count = factor.expand(self.shape).sum(dims, keepdim=True)
    centred = (self - (self * factor).sum(dims, keepdim=True) / count.clamp_min(1)) * factor
    degrees = count - (float(unbiased) if correction is None else correction)
    variance = centred.square().sum(dims, keepdim=True) / degrees.clamp_min(1)  # of one entry none, and not NaN
    return variance if keepdim else variance.squeeze(dims)


def _deviation(factor: Tensor, self: Tensor, dim: Any, **others: Any) -> Tensor:
    variance = _variance(factor, self, dim, **others)
    least = torch.finfo(variance.dtype).tiny  # the root of nothing has no slope
    return torch.where(variance == 0, 0, variance.clamp_min(least).sqrt())


def _variance_and_mean(factor: Tensor, self: Tensor, dim: Any, keepdim: bool = False, **others: Any) -> Any:
    return _variance(factor, self, dim, keepdim, **others), _mean(factor, self, dim, keepdim)


def _deviation_and_mean(factor: Tensor, self: Tensor, dim: Any, keepdim: bool = False, **others: Any) -> Any:
    return _deviation(factor, self, dim, keepdim=keepdim, **others), _mean(factor, self, dim, keepdim)


def _batch_norm(factor: Tensor, input: Tensor, weight: Any, bias: Any, eps: float, **_: Any) -> Tensor:
    """Normalize with the statistics of the batch itself, as weight standardisation does."""
    y = _normalised(input, factor, [0, *range(2, input.dim())], eps)
    channels = (1, -1, *[1] * (input.dim() - 2))
    y = y if weight is None else y * weight.view(channels)
    return y if bias is None else y + bias.view(channels)


def _length(factor: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    dims = [dim] if isinstance(dim, int) else dim or list(range(self.dim()))
    length = torch.linalg.vector_norm(self * factor, dim=dims, keepdim=keepdim)
    present = (factor.expand(self.shape) != 0).sum(dims, keepdim=keepdim)
    return torch.where(present == 0, 1, length)  # what is scaled to length 1 is divided by it


def _softmax(factor: Tensor, self: Tensor, dim: int, **_: Any) -> Tensor:
    absent = factor.expand(self.shape) == 0
    return self.masked_fill(absent, float("-inf")).softmax(dim).masked_fill(absent, 0)  # nothing at all where all are


MASKED_NORMS: Mapping[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
    "mean": _mean,
    "var": _variance,
    "std": _deviation,
    "var_mean": _variance_and_mean,
    "std_mean": _deviation_and_mean,
    "linalg_vector_norm": _length,
    "norm": _length,
    "batch_norm": _batch_norm,
    "softmax": _softmax,
}
