"""What the blocks of an estimate gave: each example's shares, and their mean over blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One block. Its estimate of the mean over examples is the mean of `shares` plus `correction`.

    Args:
        examples: which examples it used, (examples,).
        shares: each one's estimate of each player's share, (players, examples).
        coalitions: how many coalitions were evaluated.
        evaluations: the same, times the examples that each was evaluated on.
        correction: what is to be added for all examples alike, (players,).
        noise: what estimation adds to the variance of shares over examples, (players,); NaN where that is not known.
    """

    examples: Tensor
    shares: Tensor
    coalitions: int
    evaluations: int
    correction: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Pooled:
    """Each example's mean over its blocks.

    Args:
        values: (players, examples), NaN where an example was in no block.
        noise: what estimation adds to their variance over examples, (players,); NaN where that is not known: no example
            was in two blocks, nor did a block know it.
    """

    values: Tensor
    noise: Tensor


def pooled(samples: Sequence[Sample], examples: int) -> Pooled:
    """Each example's mean over its blocks."""
    players = samples[0].shares.shape[0]
    count = torch.zeros(examples, dtype=torch.float64)
    total, square = (torch.zeros(players, examples, dtype=torch.float64) for _ in range(2))
    for sample in samples:
        count[sample.examples] += 1
        total[:, sample.examples] += sample.shares
        square[:, sample.examples] += sample.shares.square()
    mean = total / count
    correction = torch.stack([sample.correction for sample in samples]).mean(0)
    repeated = count > 1
    if bool(repeated.any()):
        between = (square - count * mean.square())[:, repeated] / (count - 1)[repeated]
        noise = (between.clamp_min(0) / count[repeated]).mean(1)
    else:
        noise = torch.stack([sample.noise for sample in samples]).mean(0)
    return Pooled(mean + correction[:, None], noise)


def weights_of(samples: Sequence[Sample], examples: int) -> Tensor:
    """How much each example counts in each block. (blocks, examples)"""
    weights = torch.zeros(len(samples), examples, dtype=torch.float64)
    for block, sample in enumerate(samples):
        weights[block, sample.examples] = 1 / len(sample.examples)
    return weights


def freedom_here(samples: Sequence[Sample], examples: int) -> float:
    """How many degrees of freedom are left of the blocks' estimates beside their examples' own means."""
    weights = weights_of(samples, examples)
    used = (weights > 0).double()
    hat = weights @ (used / used.sum(0).clamp_min(1)).T
    return float((torch.eye(len(samples), dtype=torch.float64) - hat).square().sum())


PARTS = ("examples", "shares", "corrections", "noises", "counts")


def joined(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Samples as a few tensors."""
    return {
        "examples": torch.cat([sample.examples for sample in samples]),
        "shares": torch.cat([sample.shares for sample in samples], 1),
        "corrections": torch.stack([sample.correction for sample in samples]),
        "noises": torch.stack([sample.noise for sample in samples]),
        "counts": torch.tensor([[len(sample.examples), sample.coalitions, sample.evaluations] for sample in samples]),
    }


def apart(tensors: Mapping[str, Tensor]) -> tuple[Sample, ...]:
    """The samples that `joined` joined."""
    lengths, *counts = tensors["counts"].T.tolist()
    examples, shares = tensors["examples"].split(lengths), tensors["shares"].split(lengths, 1)
    rows = zip(examples, shares, *counts, tensors["corrections"], tensors["noises"], strict=True)
    return tuple(Sample(*row) for row in rows)
