"""What the blocks of an estimate gave: each example's shares, and their mean over blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One block. Its estimate of the mean over examples is the mean of `shares` plus `correction`.

    Args:
        examples: which examples it used, (examples,).
        shares: each one's estimate of each player's share, (players, examples).
        coalitions: how many coalitions were evaluated.
        evaluations: the same, times the examples that each was evaluated on; with its gradient it counts three.
        correction: what is to be added for all examples alike, (players,).
        noise: what estimation adds to the variance of shares over examples, (players,); NaN where that is not known.
    """

    examples: Tensor
    shares: Tensor
    coalitions: int
    evaluations: int
    correction: Tensor
    noise: Tensor

    def only(self, players: slice) -> "Sample":
        """The same of some players."""
        parts = (self.shares[players], self.correction[players], self.noise[players])
        return replace(self, shares=parts[0], correction=parts[1], noise=parts[2])


def side_by_side(samples: Sequence[Sample]) -> Sample:
    """One block's sample of all players, from samples of some each."""
    shares, correction, noise = (
        torch.cat([getattr(sample, part) for sample in samples]) for part in ("shares", "correction", "noise")
    )
    return replace(samples[0], shares=shares, correction=correction, noise=noise)


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


@dataclass(frozen=True)
class Totals:
    """Sums over blocks, from which means over any of them are taken.

    Args:
        count: in how many blocks each example was, (examples,).
        total: sums of shares and of their squares, (2, players, examples).
        others: sums of corrections and noises, (2, players).
        blocks: how many.
    """

    count: Tensor
    total: Tensor
    others: Tensor
    blocks: int

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(
            self.count - other.count, self.total - other.total, self.others - other.others, self.blocks - other.blocks
        )

    def pooled(self) -> Pooled:
        """Each example's mean over these blocks."""
        total, square = self.total
        mean = total / self.count
        correction, noise = self.others / self.blocks
        repeated = self.count > 1
        if bool(repeated.any()):
            count = self.count[repeated]
            between = (square[:, repeated] - count * mean[:, repeated].square()) / (count - 1)
            noise = (between.clamp_min(0) / count).mean(1)
        return Pooled(mean + correction[:, None], noise)


def totals(samples: Sequence[Sample], examples: int) -> Totals:
    """Sums over these blocks."""
    players = samples[0].shares.shape[0]
    count = torch.zeros(examples, dtype=torch.float64)
    total = torch.zeros(2, players, examples, dtype=torch.float64)
    for sample in samples:
        count[sample.examples] += 1
        total[0, :, sample.examples] += sample.shares
        total[1, :, sample.examples] += sample.shares.square()
    others = torch.stack([torch.stack([sample.correction, sample.noise]) for sample in samples]).sum(0)
    return Totals(count, total, others, len(samples))


def pool_samples(samples: Sequence[Sample], examples: int) -> Pooled:
    """Each example's mean over its blocks."""
    return totals(samples, examples).pooled()


def sample_weights(samples: Sequence[Sample], examples: int) -> Tensor:
    """How much each example counts in each block, (blocks, examples)."""
    weights = torch.zeros(len(samples), examples, dtype=torch.float64)
    for block, sample in enumerate(samples):
        weights[block, sample.examples] = 1 / len(sample.examples)
    return weights


def freedom_here(samples: Sequence[Sample], examples: int) -> float:
    """How many degrees of freedom are left of the blocks' estimates beside their examples' own means."""
    weights = sample_weights(samples, examples)
    used = (weights > 0).double()
    means = used / used.sum(0).clamp_min(1)  # the hat matrix is weights @ means.T, whose size is that of the blocks
    few = len(samples) <= examples  # the sum of the hat matrix's squares, from whichever matrices are smaller
    hat_square = (weights @ means.T).square().sum() if few else ((weights.T @ weights) * (means.T @ means)).sum()
    return float(len(samples) - 2 * (weights * means).sum() + hat_square)


MOST_LEFT_OUT = 64  # blocks or bundles of blocks that the jackknife leaves out in turn
PARTS = ("examples", "shares", "corrections", "noises", "counts")


def join_samples(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Samples as a few tensors."""
    return {
        "examples": torch.cat([sample.examples for sample in samples]),
        "shares": torch.cat([sample.shares for sample in samples], 1),
        "corrections": torch.stack([sample.correction for sample in samples]),
        "noises": torch.stack([sample.noise for sample in samples]),
        "counts": torch.tensor([[len(sample.examples), sample.coalitions, sample.evaluations] for sample in samples]),
    }


def split_samples(tensors: Mapping[str, Tensor]) -> tuple[Sample, ...]:
    """The samples that `joined` joined."""
    lengths, *counts = tensors["counts"].T.tolist()
    # pieces of their own: a view is sent to another process with all that it is a view of
    examples = [part.clone() for part in tensors["examples"].split(lengths)]
    shares = [part.clone() for part in tensors["shares"].split(lengths, 1)]
    others = ([part.clone() for part in tensors[name]] for name in ("corrections", "noises"))
    rows = zip(examples, shares, *counts, *others, strict=True)
    return tuple(Sample(*row) for row in rows)
