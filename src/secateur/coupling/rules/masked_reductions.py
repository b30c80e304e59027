"""Reductions over the entries that are present, as a cut network computes them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.rules.op_rule import MaskedOp


def norm_order(options: Mapping[str, Any]) -> Any:
    """Return the order of a norm, 2 where none is given."""
    order = options.get("ord", options.get("p"))
    return 2 if order is None else order


def masked_mean(present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Return the mean of the entries that are present."""
    dims = _dims(self, dim)
    count = present.expand(self.shape).sum(dims, keepdim=keepdim).clamp_min(1)
    return (self * present).sum(dims, keepdim=keepdim) / count


def masked_variance(
    present: Tensor,
    self: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    unbiased: bool = True,
    correction: Any = None,
    **_: Any,
) -> Tensor:
    """Return the variance of the entries that are present; of one entry 0, and not NaN."""
    dims = _dims(self, dim)
    count = present.expand(self.shape).sum(dims, keepdim=True)
    deviations = (self - (self * present).sum(dims, keepdim=True) / count.clamp_min(1)) * present
    degrees = count - (float(unbiased) if correction is None else correction)
    variance = deviations.square().sum(dims, keepdim=True) / degrees.clamp_min(1)
    return variance if keepdim else variance.squeeze(dims)


def masked_deviation(present: Tensor, self: Tensor, dim: Any = None, **options: Any) -> Tensor:
    """Return the standard deviation of the entries that are present; the root of 0 gets a derivative of 0."""
    variance = masked_variance(present, self, dim, **options)
    smallest = torch.finfo(variance.dtype).tiny
    return torch.where(variance == 0, 0, variance.clamp_min(smallest).sqrt())


def masked_variance_and_mean(
    present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    """Return the variance and the mean of the entries that are present."""
    return masked_variance(present, self, dim, keepdim, **options), masked_mean(present, self, dim, keepdim)


def masked_deviation_and_mean(
    present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    """Return the standard deviation and the mean of the entries that are present."""
    return masked_deviation(present, self, dim, keepdim=keepdim, **options), masked_mean(present, self, dim, keepdim)


def masked_norm(present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    """Return the norm of the entries that are present; 1 where there are none, as it is used to divide."""
    dims = _dims(self, dim)
    length = torch.linalg.vector_norm(self * present, norm_order(options), dim=dims, keepdim=keepdim)
    count = (present.expand(self.shape) != 0).sum(dims, keepdim=keepdim)
    return torch.where(count == 0, 1, length)


def masked_extremum(reduce: Callable[..., Tensor], sign: int) -> MaskedOp:
    """Return a maximum or the like of the entries that are present, with its positions where it has some.

    Args:
        reduce: the operator, over several axes.
        sign: that of the values that change no result, which stand in for absent entries.
    """

    def masked(present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
        is_present = present.expand(self.shape) != 0
        filled_values = torch.where(is_present, self * present, sign * torch.finfo(self.dtype).max)
        values = reduce(filled_values, _dims(self, dim), keepdim=keepdim)
        values = torch.where(is_present.any(_dims(self, dim), keepdim=keepdim), values, 0)
        return (values, filled_values.argmax(dim, keepdim)) if isinstance(dim, int) else values

    return masked


def masked_softmax(present: Tensor, self: Tensor, dim: int, **_: Any) -> Tensor:
    """Return the softmax over the entries that are present; zeros where there are none."""
    absent = present.expand(self.shape) == 0
    return self.masked_fill(absent, float("-inf")).softmax(dim).masked_fill(absent, 0)


def _dims(x: Tensor, dim: Any) -> list[int]:
    return [dim] if isinstance(dim, int) else dim or list(range(x.dim()))
