"""Estimators of the Shapley value: which coalitions to evaluate, and how their values make each player's share.

Each estimator draws a design: coalitions, and a linear map from their values to shares. All are linear in the value,
so each example gets its own shares from the same evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import comb
from torch import Tensor

from secateur.errors import NameMatchError, SecateurError

MOST_PLAYERS = 20


@dataclass(frozen=True)
class Design:
    """Coalitions to evaluate (coalitions, players), and the map from their values (coalitions, examples) to shares
    (players, examples).
    """

    coalitions: Tensor
    shares: Callable[[Tensor], Tensor]


Estimator = Callable[[int, torch.Generator], Design]


def exact(players: int, generator: torch.Generator) -> Design:
    """All coalitions (Shapley 1953): no error, for up to 20 players.

    Raises:
        SecateurError: there are more players.
    """
    if players > MOST_PLAYERS:
        raise SecateurError(
            f"the exact Shapley value of {players} units needs 2^{players} evaluations; it is offered up to "
            f"{MOST_PLAYERS} units, take estimator='antithetic'"
        )
    numbers = torch.arange(2**players)
    coalitions = (numbers[:, None] >> torch.arange(players)) & 1 == 1
    return Design(coalitions, lambda values: _exact_shares(coalitions, values))


def _exact_shares(coalitions: Tensor, values: Tensor) -> Tensor:
    players = coalitions.shape[1]
    sizes = coalitions.sum(1)
    weights = torch.tensor([1 / (players * comb(players - 1, size)) for size in range(players)], dtype=torch.float64)
    shares = torch.empty(players, values.shape[1], dtype=torch.float64)
    for player in range(players):
        without = torch.nonzero(~coalitions[:, player]).flatten()
        marginals = values[without + (1 << player)] - values[without]
        shares[player] = (weights[sizes[without], None] * marginals).sum(0)
    return shares


def permutation(players: int, generator: torch.Generator) -> Design:
    """One random order: each player's marginal when it joins (Castro et al. 2009)."""
    order = torch.randperm(players, generator=generator)
    return Design(_prefixes(order), lambda values: _marginals(order, values))


def antithetic(players: int, generator: torch.Generator) -> Design:
    """One random order and its reverse; exact where no more than two units interact."""
    order = torch.randperm(players, generator=generator)
    forwards, backwards = _prefixes(order), _prefixes(order.flip(0))

    def shares(values: Tensor) -> Tensor:
        back = torch.cat([values[:1], values[players + 1 :], values[players : players + 1]])
        return (_marginals(order, values[: players + 1]) + _marginals(order.flip(0), back)) / 2

    return Design(torch.cat([forwards, backwards[1:-1]]), shares)


def _prefixes(order: Tensor) -> Tensor:
    """The coalitions along an order, from nobody to all. (players + 1, players)"""
    players = len(order)
    joined = torch.empty(players, dtype=torch.long)
    joined[order] = torch.arange(players)
    return joined < torch.arange(players + 1)[:, None]


def _marginals(order: Tensor, values: Tensor) -> Tensor:
    """What each player adds when it joins. (players, examples)"""
    shares = torch.empty(len(order), values.shape[1], dtype=torch.float64)
    shares[order] = values.diff(dim=0)
    return shares


ESTIMATORS: dict[str, Estimator] = {"exact": exact, "permutation": permutation, "antithetic": antithetic}


def find_estimator(name: str, players: int) -> tuple[str, Estimator]:
    """An estimator by name; "auto" is exact where that is cheaper, else antithetic.

    Raises:
        NameMatchError: no estimator has that name.
    """
    if name == "auto":
        name = "exact" if 2**players <= 8 * players else "antithetic"
    if name not in ESTIMATORS:
        raise NameMatchError(f"no estimator is named {name!r}; known are auto, {', '.join(ESTIMATORS)}")
    return name, ESTIMATORS[name]
