"""Weights that stand in for zeros in trial cuts.

Branches often begin with zeros: the last norm of a residual block, the factors of its scale, adapters. Nothing that the
code computes wrongly in such a branch shows in the output, in which the branch is absent until it is trained.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SMALLEST = 1e-3  # of the largest entry of a weight; below, what the weight passes on is lost in the output


def is_silent(weight: Tensor) -> bool:
    """Return whether all entries of a weight are zero, or too small for what they multiply to show.

    Examples:
        >>> is_silent(torch.zeros(3)), is_silent(torch.full((3,), 1e-6)), is_silent(torch.tensor([0.0, 1.0]))
        (True, True, False)
    """
    if not weight.is_floating_point() or not weight.numel():
        return False
    values = weight.detach()
    first_values = values[0] if values.dim() else values  # decides it for most weights
    return all(float(torch.linalg.vector_norm(entries, torch.inf)) < SMALLEST for entries in (first_values, values))


def stand_in_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return random values for the silent parameters of a model, by name, the same in each call; biases keep theirs."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: _drawn_values(parameter, generator)
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] != "bias" and is_silent(parameter)
    }


def with_stand_ins(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give parameters of a model other memory, with these values."""
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name].clone()


def _drawn_values(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return factors near 1 for a vector; for a matrix or kernel, weights that preserve the size of what they read."""
    if parameter.dim() < 2:
        values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
    else:
        inputs = max(parameter.numel() // max(parameter.shape[0], 1), 1)
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / inputs**0.5
    return values.to(parameter)
