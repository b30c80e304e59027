"""Orders far apart (Mitchell, Cooper, Frank, Holmes, JMLR 2022, section 4.2), each with its reverse."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign
from secateur.importance.shapley.samplers.permutation import orders_and_reverses

ORDERS = 4


def orthogonal(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw four orders, or as many as exist: the ranks along orthogonal directions in the plane of sum 0."""
    directions = torch.randn(min(ORDERS, max(players - 1, 1)), players, dtype=torch.float64, generator=generator)
    centred_directions = directions - directions.mean(1, keepdim=True)
    basis, _ = torch.linalg.qr(centred_directions.T)  # (players, orders)
    return orders_and_reverses(basis.T.argsort(1))
