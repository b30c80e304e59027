"""Coalitions in pairs, each with its complement, of chosen sizes and without repeats."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.importance.shapley.samplers.base import paired

FEW = 20_000
MAX_COUNTED = 1 << 53


@dataclass(frozen=True)
class Pairs:
    """Pairs of coalitions.

    Args:
        coalitions: each followed by its complement, (2 pairs, players).
        sizes: members of the smaller one of each pair, (pairs,).
        alike: how many pairs of that size there are among these, (pairs,).
    """

    coalitions: Tensor
    sizes: Tensor
    alike: Tensor


def distinct_pairs(players: int, pairs: int, generator: torch.Generator) -> Pairs:
    """Pairs without repeats, about as many of each size, or all there are of it."""
    there = np.array([_pairs_of(players, size) for size in range(1, players // 2 + 1)])
    wanted = np.array([0.5 if 2 * size == players else 1.0 for size in range(1, players // 2 + 1)])
    counts = _rounded(_shared_out(wanted, there, pairs), generator)
    counts = np.minimum(counts, there).astype(int)
    subsets = [_subsets(players, size, int(count), generator) for size, count in enumerate(counts, 1) if count]
    sizes = np.repeat(np.arange(1, len(counts) + 1), counts)
    order = torch.randperm(len(sizes), generator=generator)  # neighbours will share examples
    alike = torch.from_numpy(counts[sizes - 1])
    return Pairs(paired(torch.cat(subsets)[order]), torch.from_numpy(sizes)[order], alike[order])


def _pairs_of(players: int, size: int) -> float:
    """How many pairs there are whose smaller coalition has that size; infinite where they are too many to count."""
    pairs = math.comb(players, size) // (2 if 2 * size == players else 1)
    return float(pairs) if pairs < MAX_COUNTED else math.inf


def _shared_out(shares: np.ndarray, there: np.ndarray, wanted: float) -> np.ndarray:
    """So many pairs of each size, in proportion to the shares, but never more than there are."""
    given, open_ = np.zeros(len(shares)), np.ones(len(shares), bool)
    for _ in shares:
        left = wanted - given[~open_].sum()
        given[open_] = left * shares[open_] / shares[open_].sum()
        full = open_ & (given >= there)
        if not full.any():
            break
        given[full], open_ = there[full], open_ & ~full
        if not open_.any():
            break
    return given


def _rounded(amounts: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Whole numbers with these expectations, and their sum kept within one."""
    start = float(torch.rand(1, dtype=torch.float64, generator=generator))
    return np.diff(np.floor(np.concatenate([[0.0], np.cumsum(amounts)]) + start + 1e-9))


def _subsets(players: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Distinct subsets of one size, of which none is another's complement, (count, players)."""
    halves = 2 * size == players
    if _pairs_of(players, size) <= FEW:
        every = np.array(list(itertools.combinations(range(players), size)))
        every = every[every[:, 0] == 0] if halves else every
        chosen = every[torch.randperm(len(every), generator=generator)[:count].numpy()]
        return torch.zeros(count, players, dtype=torch.bool).scatter_(1, torch.from_numpy(chosen), True)
    found: dict[bytes, Tensor] = {}
    while len(found) < count:
        ranks = torch.rand(count - len(found), players, generator=generator).argsort(1)
        drawn = torch.zeros(len(ranks), players, dtype=torch.bool).scatter_(1, ranks[:, :size], True)
        drawn = drawn ^ ~drawn[:, :1] if halves else drawn  # of two halves the one with the first player
        found.update({subset.numpy().tobytes(): subset for subset in drawn})
    return torch.stack(list(found.values()))
