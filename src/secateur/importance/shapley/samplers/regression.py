"""The Shapley value as the solution of a weighted least squares problem (Charnes et al. 1988)."""

import torch
from torch import Tensor

SINGULAR = 1e-12


def solution(coalitions: Tensor, weights: Tensor, surplus: Tensor) -> Tensor:
    """Shares that sum to 0 and explain the surplus best.

    Where the coalitions leave some combination of players undetermined, it gets no share: the limit of a ridge that
    vanishes.

    Args:
        coalitions: (coalitions, players).
        weights: (coalitions,).
        surplus: (coalitions, examples).

    Returns:
        (players, examples).
    """
    members = coalitions.double()
    centred = members - members.mean(1, keepdim=True)  # the plane of sum 0
    weighted = centred * weights[:, None]
    values, vectors = torch.linalg.eigh(centred.T @ weighted)
    alive = values > SINGULAR * values[-1:].clamp_min(1e-300)
    inverse = torch.where(alive, 1 / values.where(alive, values.new_ones(())), values.new_zeros(()))
    shares: Tensor = vectors @ (inverse[:, None] * (vectors.T @ (weighted.T @ surplus)))
    return shares
