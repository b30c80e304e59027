"""The diagonal of a Hessian by differentiating a gradient once more: estimated by random products, or exact."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from secateur.errors import DataError

PROBES = 8  # random products for each minibatch


def estimated_diagonal(slope: Tensor, leaves: Tensor, generator: torch.Generator, probes: int = PROBES) -> Tensor:
    """Return an unbiased estimate: the mean of products with random signs (Hutchinson 1989; Bekas et al. 2007).

    Args:
        slope: the gradient by `leaves`, which can be differentiated again; of their shape.
        leaves: the variables of the Hessian.
        generator: the generator of the signs.
        probes: the number of products.

    Returns:
        The estimate, of the shape of `leaves`.

    Examples:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        >>> estimated_diagonal(slope, x, torch.Generator().manual_seed(0))
        tensor([ 6., 12.])
    """
    total = torch.zeros_like(slope)
    if not slope.requires_grad:  # the loss is linear
        return total
    for _ in range(probes):
        signs = (torch.randint(0, 2, slope.shape, generator=generator) * 2 - 1).to(slope)
        (product,) = second_derivatives((slope * signs).sum(), [leaves])
        total += product * signs
    return total.detach() / probes


def exact_diagonal(slope: Tensor, leaves: Tensor, entries: Iterable[Sequence[int]]) -> Tensor:
    """Return the diagonal itself, by one backward pass for each entry.

    Args:
        slope: the gradient by `leaves`, which can be differentiated again; of their shape.
        leaves: the variables of the Hessian.
        entries: the indices of the entries to compute; the others are 0.

    Returns:
        The diagonal, of the shape of `leaves`.

    Examples:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> (slope,) = torch.autograd.grad((x**2).sum() ** 2, x, create_graph=True)
        >>> exact_diagonal(slope, x, [(0,), (1,)])
        tensor([28., 52.])
    """
    diagonal = torch.zeros_like(slope)
    if not slope.requires_grad:
        return diagonal
    for entry in map(tuple, entries):
        (row,) = second_derivatives(slope[entry], [leaves])
        diagonal[entry] = row[entry]
    return diagonal.detach()


def second_derivatives(along: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the derivatives of a gradient along a direction.

    Raises:
        DataError: torch has no second derivative of an operator of the network or of its loss.
    """
    try:
        return torch.autograd.grad(along, leaves, retain_graph=True, materialize_grads=True, allow_unused=True)
    except RuntimeError as failure:
        if "is not implemented" not in str(failure):
            raise
        raise DataError(
            f"torch can't differentiate an operator of the network or of its loss twice ({failure}); rank by the "
            "criterion of first order"
        ) from failure
