"""The weighted Banzhaf value, another semivalue: what a unit adds where each other one stays with a given chance."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler

COALITIONS_PER_PLAYER = 10


def banzhaf_at(ratio: float) -> Sampler:
    """The estimator for units that stay with this chance, such as the fraction that will be kept."""

    def estimator(players: int, generator: torch.Generator) -> CoalitionDesign:
        drawn = torch.rand(COALITIONS_PER_PLAYER * players, players, generator=generator) < ratio
        members = drawn.double()
        inside, outside = members.sum(0).clamp_min(1), (1 - members).sum(0).clamp_min(1)
        weights = members / inside - (1 - members) / outside
        known = drawn.any(1) & ~drawn.all(1)  # the surplus of nobody and of all is 0
        return CoalitionDesign(drawn[known], lambda surplus: weights[known].T @ surplus, free=True)

    return estimator


def banzhaf(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Ten coalitions for each player, each unit in one of two."""
    return banzhaf_at(0.5)(players, generator)
