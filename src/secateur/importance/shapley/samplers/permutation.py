"""Random orders: each player's marginal when it joins."""

import torch
from torch import Tensor

from secateur.importance.shapley.samplers.base import CoalitionDesign, marginals, prefixes


def permutation(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw one random order (Castro, Gómez, Tejada 2009)."""
    order = torch.randperm(players, generator=generator)
    return CoalitionDesign(prefixes(order), lambda surplus: marginals(order, surplus))


def antithetic(players: int, generator: torch.Generator) -> CoalitionDesign:
    """Draw one random order and its reverse; exact where no more than two units interact."""
    return orders_and_reverses(torch.randperm(players, generator=generator)[None])


def orders_and_reverses(orders: Tensor) -> CoalitionDesign:
    """Return the design of the mean over several orders (orders, players), each with its reverse."""
    all_orders = torch.cat([orders, orders.flip(1)])
    coalitions = torch.cat([prefixes(order) for order in all_orders])

    def shares(surplus: Tensor) -> Tensor:
        by_order = surplus.chunk(len(all_orders)) if len(surplus) else [surplus] * len(all_orders)
        return torch.stack([marginals(order, values) for order, values in zip(all_orders, by_order, strict=True)]).mean(
            0
        )

    return CoalitionDesign(coalitions, shares)
