"""KernelSHAP on pairs (Lundberg, Lee 2017; Covert, Lee, AISTATS 2021, section 4)."""

import torch

from secateur.importance.shapley.samplers.base import CoalitionDesign, with_complements
from secateur.importance.shapley.samplers.regression import solution

PAIRS_PER_PLAYER = 5


def kernelshap(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw ten coalitions for each player, by the kernel's weight of their size, each with its complement."""
    coalitions = with_complements(drawn_by_kernel(players, PAIRS_PER_PLAYER * players, generator))
    weights = torch.ones(len(coalitions), dtype=torch.float64)
    return CoalitionDesign(coalitions, lambda surplus: solution(coalitions, weights, surplus), free=True)


def drawn_by_kernel(players: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw coalitions of s players with probability in proportion to 1 / (s (n - s)), (count, players)."""
    sizes = torch.arange(1, players, dtype=torch.float64)
    drawn_sizes = torch.multinomial(1 / (sizes * (players - sizes)), count, replacement=True, generator=generator) + 1
    return of_sizes(players, drawn_sizes, generator)


def of_sizes(players: int, sizes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a random coalition of each of these sizes, (coalitions, players)."""
    ranks = torch.rand(len(sizes), players, generator=generator).argsort(1).argsort(1)
    return ranks < sizes[:, None]
