"""Responses of layers to constant inputs."""

import torch
from torch import Tensor

from secateur.coupling.consumers import ConstantSink
from secateur.utils.dtypes import to_widest


def constant_response(weight: Tensor, fold: ConstantSink, inputs: Tensor) -> Tensor:
    """Return the response of a linear layer or convolution to inputs that are constant over space.

    Args:
        weight: (out, in / groups, *kernel), or with the axes that `fold.inner` says.
        fold: the consumer's.
        inputs: (coalitions, in).

    Returns:
        (coalitions, out), in float64.
    """
    if len(inputs) == 1 and fold.groups == 1:  # only what is not zero counts, of which there may be little
        positions = torch.nonzero(inputs[0]).flatten()
        weight, inputs = weight.index_select(fold.inner, positions.to(weight.device)), inputs[:, positions]
    return masked_grouped_product(sum_over_kernel(weight, fold), fold, inputs)


def sum_over_kernel(weight: Tensor, fold: ConstantSink) -> Tensor:
    """Sum a weight over its kernel, (out, in / groups) in float64."""
    matrix = to_widest(weight).movedim(fold.inner, 1)
    return matrix.flatten(2).sum(2) if weight.dim() > 2 else matrix


def masked_grouped_product(matrix: Tensor, fold: ConstantSink, inputs: Tensor) -> Tensor:
    """Multiply a matrix (out, in / groups), group by group, by inputs (coalitions, in). (coalitions, out)"""
    by_group = inputs.to(matrix).unflatten(1, (fold.groups, -1))  # (coalitions, groups, in / groups)
    rows = matrix.unflatten(0, (fold.groups, -1))  # (groups, out / groups, in / groups)
    return torch.einsum("cgi,goi->cgo", by_group, rows).flatten(1)
