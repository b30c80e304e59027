"""Regression-adjusted Monte Carlo (Witter, Liu, Musco, NeurIPS 2025): the residual of a regression is sampled, too."""

import torch
from torch import Tensor

from secateur.importance.shapley.samplers.base import CoalitionDesign, with_complements
from secateur.importance.shapley.samplers.kernelshap import of_sizes
from secateur.importance.shapley.samplers.regression import solution

PAIRS_PER_HALF = 3


def adjusted(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw two halves of six coalitions for each player: a linear surrogate of each is corrected on the other."""
    sizes = torch.randint(1, players, (2 * PAIRS_PER_HALF * players,), generator=generator)
    coalitions = with_complements(of_sizes(players, sizes, generator))
    return CoalitionDesign(coalitions, lambda surplus: _adjusted_shares(coalitions, surplus), free=True)


def _adjusted_shares(coalitions: Tensor, surplus: Tensor) -> Tensor:
    half = len(coalitions) // 2
    fitted, corrected = slice(0, half), slice(half, None)
    estimates = [_half_shares(coalitions, surplus, *halves) for halves in ((fitted, corrected), (corrected, fitted))]
    return torch.stack(estimates).mean(0)


def _half_shares(coalitions: Tensor, surplus: Tensor, fitted: slice, corrected: slice) -> Tensor:
    sizes = coalitions.sum(1).double()
    kernel = 1 / (sizes * (coalitions.shape[1] - sizes))
    surrogate = solution(coalitions[fitted], kernel[fitted], surplus[fitted])
    residual = surplus[corrected] - coalitions[corrected].double() @ surrogate
    return surrogate + sampled_shares(coalitions[corrected], residual)


def sampled_shares(coalitions: Tensor, values: Tensor) -> Tensor:
    """Return the Shapley value by plain sampling, with all sizes from 1 to n - 1 alike, (players, examples)."""
    players = coalitions.shape[1]
    sizes = coalitions.sum(1, keepdim=True).double()
    inside, outside = (players - 1) / sizes, -(players - 1) / (players - sizes)
    return torch.where(coalitions, inside, outside).T @ values / len(coalitions)
