"""The weighted Banzhaf value, another semivalue: a unit's gain where each other one is present with a probability."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler

COALITIONS_PER_PLAYER = 10


def banzhaf_at(probability: float) -> Sampler:
    """Return the sampler for units that are present with this probability, such as the fraction that will be kept."""

    def sampler(players: int, generator: torch.Generator) -> CoalitionDesign:
        """Draw ten coalitions for each player."""
        coalitions = torch.rand(COALITIONS_PER_PLAYER * players, players, generator=generator) < probability
        members = coalitions.double()
        inside, outside = members.sum(0).clamp_min(1), (1 - members).sum(0).clamp_min(1)
        weights = members / inside - (1 - members) / outside
        is_proper = coalitions.any(1) & ~coalitions.all(1)  # the surplus of the empty coalition and of all is 0
        return CoalitionDesign(coalitions[is_proper], lambda surplus: weights[is_proper].T @ surplus, free=True)

    sampler.__name__ = "banzhaf" if probability == 0.5 else f"banzhaf at {probability:g}"
    return sampler


banzhaf = banzhaf_at(0.5)
