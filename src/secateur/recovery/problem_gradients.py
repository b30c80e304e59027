"""Gradients of a block problem: of the outputs by the weights, and of these by the changes that they are made of."""

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.errors import MissingGradientError


def gradient(outputs: Sequence[Tensor], tensors: Sequence[Tensor], directions: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradient of the outputs along directions, by the tensors.

    Raises:
        MissingGradientError: an operator between them has no gradient.
    """
    pairs = [pair for pair in zip(outputs, directions, strict=True) if pair[0].requires_grad]
    try:
        return torch.autograd.grad(
            [output for output, _ in pairs], tensors, [direction for _, direction in pairs], materialize_grads=True
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as failure:
        raise MissingGradientError(str(failure)) from failure


def slopes_by_changes(
    changes: Sequence[Tensor], tensors: Sequence[Tensor], slopes: list[Tensor], has_constant: Sequence[bool]
) -> list[Tensor]:
    """Return the slopes by changes of layers, layer by layer.

    Args:
        changes: the changes, which need gradients.
        tensors: the weights of all layers that were made of these, and the constants of those that have one.
        slopes: the slopes by these tensors, which are used up, so that both are not held for all layers.
        has_constant: for each layer whether it has a constant.
    """
    by_changes, constant = list[Tensor](), len(changes)
    for number, change in enumerate(changes):
        of_layer = [number, constant] if has_constant[number] else [number]
        constant += len(of_layer) - 1
        sums = [slopes[index].to(tensors[index]) for index in of_layer]
        for index in of_layer:
            slopes[index] = slopes[index].new_empty(0)
        by_changes += torch.autograd.grad([tensors[index] for index in of_layer], [change], sums)
    return by_changes
