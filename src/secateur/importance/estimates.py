"""Samples of an estimate: each example's shares from each block, and their mean over blocks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.errors import OptionError


@dataclass(frozen=True)
class Sample:
    """The sample of one block. It estimates the mean over examples by the mean of `shares` plus `correction`.

    Args:
        examples: the numbers of its examples, (examples,).
        shares: the estimate of each player's share for each example, (players, examples).
        coalitions: the number of coalitions evaluated.
        evaluations: the sum of the numbers of examples that each was evaluated on; a gradient counts three.
        correction: the correction of all examples' shares, (players,).
        noise: the part of the variance of shares over examples due to sampling, (players,): NaN where it is unknown, 0
            where shares are exact.
    """

    examples: Tensor
    shares: Tensor
    coalitions: int
    evaluations: int
    correction: Tensor
    noise: Tensor

    def only(self, players: slice) -> "Sample":
        """Return the sample of some players."""
        return replace(
            self, shares=self.shares[players], correction=self.correction[players], noise=self.noise[players]
        )


def side_by_side(samples: Sequence[Sample]) -> Sample:
    """Return one block's sample of all players, from samples of some players each."""
    fields = ("shares", "correction", "noise")
    shares, correction, noise = (torch.cat([getattr(sample, name) for sample in samples]) for name in fields)
    return replace(samples[0], shares=shares, correction=correction, noise=noise)


@dataclass(frozen=True)
class Pooled:
    """Each example's mean over its blocks.

    Args:
        values: (players, examples), NaN where an example was in no block.
        noise: the part of their variance over examples due to sampling, (players,); NaN where it is unknown: no example
            was in two blocks, and no block estimated it.
    """

    values: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Totals:
    """Sums over blocks, from which means over any of them follow.

    Args:
        count: the number of blocks of each example, (examples,).
        total: sums of shares and of their squares, (2, players, examples).
        others: sums of corrections and noises, (2, players).
        blocks: the number of blocks.
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
        """Return each example's mean over these blocks."""
        total, square = self.total
        mean = total / self.count
        correction, noise = self.others / self.blocks
        is_repeated = self.count > 1
        if bool(is_repeated.any()):
            count = self.count[is_repeated]
            between = (square[:, is_repeated] - count * mean[:, is_repeated].square()) / (count - 1)
            noise = (between.clamp_min(0) / count).mean(1)
        return Pooled(mean + correction[:, None], noise)


def totals(samples: Sequence[Sample], examples: int) -> Totals:
    """Return the sums over some blocks."""
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
    """Return each example's mean over its blocks."""
    return totals(samples, examples).pooled()


def are_exact(samples: Sequence[Sample], examples: int) -> bool:
    """Return whether nothing was left to chance: every example has its exact shares, as from all coalitions."""
    is_free_of_noise = all(not bool(sample.noise.any() or sample.correction.any()) for sample in samples)
    return is_free_of_noise and len({*torch.cat([sample.examples for sample in samples]).tolist()}) == examples


def sample_weights(samples: Sequence[Sample], examples: int) -> Tensor:
    """Return the weight of each example in each block, (blocks, examples)."""
    weights = torch.zeros(len(samples), examples, dtype=torch.float64)
    for block, sample in enumerate(samples):
        weights[block, sample.examples] = 1 / len(sample.examples)
    return weights


def degrees_of_freedom(samples: Sequence[Sample], examples: int) -> float:
    """Return the degrees of freedom of the blocks' estimates beside their examples' means."""
    weights = sample_weights(samples, examples)
    is_used = (weights > 0).double()
    means = is_used / is_used.sum(0).clamp_min(
        1
    )  # the hat matrix is weights @ means.T, whose size is that of the blocks
    is_few = len(samples) <= examples  # the sum of the hat matrix's squares, from whichever matrices are smaller
    hat_square = (weights @ means.T).square().sum() if is_few else ((weights.T @ weights) * (means.T @ means)).sum()
    return float(len(samples) - 2 * (weights * means).sum() + hat_square)


def freedom_of_errors(samples: Sequence[Sample], examples: int | None, here: bool) -> float:
    """Return the degrees of freedom of standard errors: of the blocks, or of the examples where nothing was sampled.

    Args:
        samples: the samples of each block; none where nothing was sampled.
        examples: the number of examples with values of their own; None where there are none.
        here: whether the errors are those for these examples.
    """
    if examples is None:
        return math.inf
    if not samples or are_exact(samples, examples):
        return float(max(examples - 1, 1))
    within_examples = degrees_of_freedom(samples, examples) if here else 0.0
    return within_examples if within_examples >= 1 else max(min(len(samples), MAX_REPLICATES) - 1.0, 1.0)


MAX_REPLICATES = 64  # blocks or bundles of blocks that the jackknife omits in turn
SAMPLE_TENSORS = ("examples", "shares", "corrections", "noises", "counts")


def join_samples(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Return samples as a few tensors, for a file."""
    return {
        "examples": torch.cat([sample.examples for sample in samples]),
        "shares": torch.cat([sample.shares for sample in samples], 1),
        "corrections": torch.stack([sample.correction for sample in samples]),
        "noises": torch.stack([sample.noise for sample in samples]),
        "counts": torch.tensor([[len(sample.examples), sample.coalitions, sample.evaluations] for sample in samples]),
    }


def split_samples(tensors: Mapping[str, Tensor]) -> tuple[Sample, ...]:
    """Return the samples that `join_samples` joined."""
    lengths, *counts = tensors["counts"].T.tolist()
    # copies: a view is sent to another process with its whole base
    examples = [view.clone() for view in tensors["examples"].split(lengths)]
    shares = [view.clone() for view in tensors["shares"].split(lengths, 1)]
    others = ([view.clone() for view in tensors[name]] for name in ("corrections", "noises"))
    rows = zip(examples, shares, *counts, *others, strict=True)
    return tuple(Sample(*row) for row in rows)


def student_quantile(level: float, freedom: float) -> float:
    """Return how many standard errors an interval of this probability reaches to each side, by Student's t.

    Raises:
        OptionError: the level is no probability between 0 and 1.
    """
    from scipy.special import stdtrit  # a quarter of the time that `scipy.stats` takes to be imported

    if not 0 < level < 1:
        raise OptionError(f"level={level} must lie between 0 and 1; give 0.95 for intervals of 95 %")
    return float(stdtrit(freedom, (1 + level) / 2))
