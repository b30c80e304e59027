"""All coalitions (Shapley 1953): no error, for up to 20 players."""

import math

import torch
from torch import Tensor

from secateur.errors import SecateurError
from secateur.importance.shapley.samplers.base import CoalitionDesign

MOST_PLAYERS = 20


def exact(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Return all coalitions.

    Raises:
        SecateurError: there are more than 20 players.
    """
    if players > MOST_PLAYERS:
        raise SecateurError(
            f"the exact Shapley value of {players} units needs 2^{players} evaluations; it is offered up to "
            f"{MOST_PLAYERS} units, take 'leverage'"
        )
    numbers = torch.arange(2**players)
    coalitions = (numbers[:, None] >> torch.arange(players)) & 1 == 1
    return CoalitionDesign(coalitions[1:-1], lambda surplus: _exact_shares(coalitions, surplus))


def _exact_shares(coalitions: Tensor, surplus: Tensor) -> Tensor:

    players = coalitions.shape[1]
    zero = surplus.new_zeros(1, surplus.shape[1])
    values = torch.cat([zero, surplus, zero])
    sizes = coalitions.sum(1)
    weights = torch.tensor(
        [1 / (players * math.comb(players - 1, size)) for size in range(players)], dtype=torch.float64
    )
    shares = surplus.new_empty(players, surplus.shape[1])
    for player in range(players):
        without = torch.nonzero(~coalitions[:, player]).flatten()
        gains = values[without + (1 << player)] - values[without]
        shares[player] = (weights[sizes[without], None] * gains).sum(0)
    return shares
