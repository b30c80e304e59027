"""Stratified SVARM: means over the coalitions of each size with and without a player (Kolpaczki et al., AAAI 2024)."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign, with_complements
from secateur.importance.shapley.samplers.kernelshap import of_sizes

PAIRS_PER_PLAYER = 4


def svarm(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw all coalitions of one player and of all but one, and eight for each player of the sizes between.

    The surplus of a stratum without coalitions is taken for zero.
    """
    coalitions = with_complements(torch.eye(players, dtype=torch.bool))
    if players > 3:
        sizes = torch.randint(2, players - 1, (PAIRS_PER_PLAYER * players,), generator=generator)
        coalitions = torch.cat([coalitions, with_complements(of_sizes(players, sizes, generator))])
    coalitions = coalitions[:2] if players == 2 else coalitions  # one player and all but one are the same
    by_size = torch.nn.functional.one_hot(coalitions.sum(1), players + 1).double()  # (coalitions, sizes)
    members = coalitions.double()
    with_, without = (
        by_size @ (1 / (by_size.T @ presence).clamp_min(1)) * presence for presence in (members, 1 - members)
    )
    weights = (with_ - without) / players
    return CoalitionDesign(coalitions, lambda surplus: weights.T @ surplus, free=True)
