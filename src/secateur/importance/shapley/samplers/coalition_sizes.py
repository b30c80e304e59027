"""Coalitions in pairs, each with its complement, of given sizes and without repeats."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.importance.shapley.samplers.base import with_complements

MAX_LISTED = 20_000
MAX_COUNTED = 1 << 53


@dataclass(frozen=True)
class Pairs:
    """Pairs of coalitions.

    Args:
        coalitions: each followed by its complement, (2 pairs, players).
        sizes: members of the smaller one of each pair, (pairs,).
        count_of_size: the number of pairs of that size among these, (pairs,).
    """

    coalitions: Tensor
    sizes: Tensor
    count_of_size: Tensor


def distinct_pairs(players: int, pairs: int, generator: torch.Generator) -> Pairs:
    """Draw pairs without repeats, about as many of each size, or all that exist of it."""
    existing = np.array([_pairs_of(players, size) for size in range(1, players // 2 + 1)])
    shares = np.array([0.5 if 2 * size == players else 1.0 for size in range(1, players // 2 + 1)])
    counts = _round_at_random(_distribute_pairs(shares, existing, pairs), generator)
    counts = np.minimum(counts, existing).astype(int)
    subsets = [_subsets(players, size, int(count), generator) for size, count in enumerate(counts, 1) if count]
    sizes = np.repeat(np.arange(1, len(counts) + 1), counts)
    order = torch.randperm(len(sizes), generator=generator)  # neighbours will share examples
    count_of_size = torch.from_numpy(counts[sizes - 1])
    return Pairs(with_complements(torch.cat(subsets)[order]), torch.from_numpy(sizes)[order], count_of_size[order])


def _pairs_of(players: int, size: int) -> float:
    """Return the number of pairs whose smaller coalition has a size; infinite where it exceeds exact floats."""
    pairs = math.comb(players, size) // (2 if 2 * size == players else 1)
    return float(pairs) if pairs < MAX_COUNTED else math.inf


def _distribute_pairs(shares: np.ndarray, existing: np.ndarray, total: float) -> np.ndarray:
    """Return the number of pairs of each size, in proportion to the shares, but never more than exist."""
    counts, is_open = np.zeros(len(shares)), np.ones(len(shares), bool)
    for _ in shares:
        remaining = total - counts[~is_open].sum()
        counts[is_open] = remaining * shares[is_open] / shares[is_open].sum()
        is_full = is_open & (counts >= existing)
        if not is_full.any():
            break
        counts[is_full], is_open = existing[is_full], is_open & ~is_full
        if not is_open.any():
            break
    return counts


def _round_at_random(amounts: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Round amounts at random to integers of the same expectations, and of the same sum within one."""
    start = float(torch.rand(1, dtype=torch.float64, generator=generator))
    return np.diff(np.floor(np.concatenate([[0.0], np.cumsum(amounts)]) + start + 1e-9))


def _subsets(players: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw distinct subsets of one size, none of which is another's complement, (count, players)."""
    halves = 2 * size == players
    if _pairs_of(players, size) <= MAX_LISTED:
        all_subsets = np.array(list(itertools.combinations(range(players), size)))
        all_subsets = all_subsets[all_subsets[:, 0] == 0] if halves else all_subsets
        chosen_subsets = all_subsets[torch.randperm(len(all_subsets), generator=generator)[:count].numpy()]
        return torch.zeros(count, players, dtype=torch.bool).scatter_(1, torch.from_numpy(chosen_subsets), True)
    subsets: dict[bytes, Tensor] = {}
    while len(subsets) < count:
        ranks = torch.rand(count - len(subsets), players, generator=generator).argsort(1)
        drawn_coalitions = torch.zeros(len(ranks), players, dtype=torch.bool).scatter_(1, ranks[:, :size], True)
        drawn_coalitions = (
            drawn_coalitions ^ ~drawn_coalitions[:, :1] if halves else drawn_coalitions
        )  # of two halves the one with the first player
        subsets.update({subset.numpy().tobytes(): subset for subset in drawn_coalitions})
    return torch.stack(list(subsets.values()))
