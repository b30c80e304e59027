"""The Shapley value as the solution of a weighted least squares problem (Charnes et al. 1988)."""

import torch
from torch import Tensor

SINGULAR = 1e-12


def solution(coalitions: Tensor, weights: Tensor, surplus: Tensor) -> Tensor:
    """Return shares that sum to 0 and fit the surplus best.

    A combination of players that the coalitions do not determine gets no share: the limit of a vanishing ridge.

    Args:
        coalitions: the members of each coalition (coalitions, players).
        weights: the weight of each coalition (coalitions,).
        surplus: their surplus (coalitions, examples).

    Returns:
        The shares (players, examples).
    """
    members = coalitions.double()
    centred_members = members - members.mean(1, keepdim=True)  # the plane of sum 0
    weighted_members = centred_members * weights[:, None]
    values, vectors = torch.linalg.eigh(centred_members.T @ weighted_members)
    is_determined = values > SINGULAR * values[-1:].clamp_min(1e-300)
    inverse = torch.where(is_determined, 1 / values.where(is_determined, values.new_ones(())), values.new_zeros(()))
    shares: Tensor = vectors @ (inverse[:, None] * (vectors.T @ (weighted_members.T @ surplus)))
    return shares
