"""Designs of samplers: coalitions, and the function from their values to each player's share.

A sampler uses the surplus of a coalition, its value beyond its size's share: v(S) - v(none) - (v(all) - v(none))
|S| / n. It is 0 for the empty and the full one, so neither is evaluated. Shares are linear in it, so each example
gets its own from the same evaluations, and each player gets (v(all) - v(none)) / n on top.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.options.call_checks import checked_calls


@checked_calls
@dataclass(frozen=True)
class CoalitionDesign:
    """Coalitions to evaluate, and the function of their values.

    Args:
        coalitions: the members of each coalition, booleans (coalitions, players); not the empty, not the full.
        shares: a linear function from the coalitions' surplus (coalitions, examples) to shares (players, examples).
        free: whether each pair of coalitions may be evaluated on other examples; along an order it may not.
    """

    coalitions: Tensor
    shares: Callable[[Tensor], Tensor]
    free: bool = False


Sampler = Callable[[int, torch.Generator], CoalitionDesign]


def prefixes(order: Tensor) -> Tensor:
    """Return the coalitions along an order, without the empty and the full one, (players - 1, players)."""
    players = len(order)
    join_order = torch.empty(players, dtype=torch.long)
    join_order[order] = torch.arange(players)
    return join_order < torch.arange(1, players)[:, None]


def marginals(order: Tensor, surplus: Tensor) -> Tensor:
    """Return each player's gain when it joins along an order, (players, examples)."""
    zero = surplus.new_zeros(1, surplus.shape[1])
    shares = surplus.new_empty(len(order), surplus.shape[1])
    shares[order] = torch.cat([zero, surplus, zero]).diff(dim=0)
    return shares


def with_complements(coalitions: Tensor) -> Tensor:
    """Return each coalition followed by its complement."""
    return torch.stack([coalitions, ~coalitions], 1).flatten(0, 1)
