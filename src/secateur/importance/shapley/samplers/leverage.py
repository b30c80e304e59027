"""Leverage SHAP: regression on coalitions of all sizes alike, in pairs (Musco, Witter, ICLR 2025)."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign
from secateur.importance.shapley.samplers.coalition_sizes import distinct_pairs
from secateur.importance.shapley.samplers.regression import solution

PAIRS_PER_PLAYER = 5


def leverage(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw ten coalitions for each player, distinct, each with its complement.

    The weight of a coalition of s players is 1 / (s (n - s)) over the number drawn of its size: the kernel's weight
    over its probability, in which the binomials cancel.
    """
    pairs = distinct_pairs(players, PAIRS_PER_PLAYER * players, generator)
    smaller = pairs.sizes.double()
    mass = 1 / (smaller * (players - smaller)) / torch.where(2 * pairs.sizes == players, 2.0, 1.0)
    weights = (mass / pairs.count_of_size).repeat_interleave(2)
    return CoalitionDesign(pairs.coalitions, lambda surplus: solution(pairs.coalitions, weights, surplus), free=True)
