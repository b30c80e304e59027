"""What every estimator of the Shapley value draws: coalitions, and how their values make each player's share.

Only what a coalition is worth beyond its size's share is looked at, its surplus: v(S) - v(none) - (v(all) - v(none))
|S| / n. It is 0 for nobody and for all, so neither stands among the coalitions. Shares are linear in it, so each
example gets its own from the same evaluations, and each player gets (v(all) - v(none)) / n on top.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CoalitionDesign:
    """Coalitions to evaluate, and what to make of their values.

    Args:
        coalitions: which players take part, booleans (coalitions, players); neither nobody nor all.
        shares: from the coalitions' surplus (coalitions, examples) to the players' (players, examples); linear.
        free: whether each pair of coalitions may be evaluated on other examples; along an order it may not.
    """

    coalitions: Tensor
    shares: Callable[[Tensor], Tensor]
    free: bool = False


Sampler = Callable[[int, torch.Generator], CoalitionDesign]


def prefixes(order: Tensor) -> Tensor:
    """The coalitions along an order, but for nobody and all, (players - 1, players)."""
    players = len(order)
    joined = torch.empty(players, dtype=torch.long)
    joined[order] = torch.arange(players)
    return joined < torch.arange(1, players)[:, None]


def marginals(order: Tensor, surplus: Tensor) -> Tensor:
    """What each player adds when it joins, (players, examples)."""
    nothing = surplus.new_zeros(1, surplus.shape[1])
    shares = surplus.new_empty(len(order), surplus.shape[1])
    shares[order] = torch.cat([nothing, surplus, nothing]).diff(dim=0)
    return shares


def paired(coalitions: Tensor) -> Tensor:
    """Each coalition followed by its complement."""
    return torch.stack([coalitions, ~coalitions], 1).flatten(0, 1)
