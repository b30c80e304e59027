"""From what the blocks gave to one score per unit, with its standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.estimates import (
    MOST_LEFT_OUT,
    Pooled,
    Sample,
    freedom_here,
    pool_samples,
    sample_weights,
    totals,
)
from secateur.importance.shapley.aggregates import Aggregate, mean


@dataclass(frozen=True)
class Estimate:
    """Scores of the units with their errors.

    Args:
        values: (players,).
        errors: standard errors, for other examples of the same kind.
        errors_here: standard errors, for these examples: what more coalitions would take away.
        replicates: the jackknife's pseudo-values, (blocks, players), whose mean and spread give value and error; where
            there are very many blocks, of bundles of them.
    """

    values: Tensor
    errors: Tensor
    errors_here: Tensor
    replicates: Tensor


def jackknife_estimate(samples: Sequence[Sample], examples: int, aggregate: Aggregate) -> Estimate:
    """The aggregate of what the blocks gave, and how sure it is.

    The jackknife leaves out one block at a time, so its error is that of the blocks: of the coalitions, and of the
    examples as far as blocks differ in them. For the mean the two are told apart where examples are in several blocks
    (with all in every block, the design of two ways): what a block gives beyond its examples' own means is the error of
    the coalitions. The variance between examples, less what estimation adds to it, counts wholly for other examples,
    and for these ones as far as some were not used. Where they can't be told apart, and for other aggregates, the
    jackknife's error stands for both.
    """
    whole = pool_samples(samples, examples)
    values = aggregate(whole.values, whole.noise)
    count = len(samples)
    if count == 1:
        replicates = _by_examples(samples[0], aggregate)
        error = replicates.std(0) / len(replicates) ** 0.5 if len(replicates) > 1 else torch.zeros_like(values)
        return Estimate(values, error, torch.zeros_like(values), replicates)
    replicates = _replicates(samples, examples, aggregate, values)
    variance = replicates.var(0) / len(replicates)
    freedom = freedom_here(samples, examples)
    if aggregate is not mean or freedom < FEWEST:
        return Estimate(values, variance.sqrt(), variance.sqrt(), replicates)
    own = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples])
    expected = torch.stack([whole.values[:, sample.examples].mean(1) for sample in samples])
    coalitions = (own - expected).square().sum(0) / freedom / count
    between = _between_examples(whole)
    overlap = float(sample_weights(samples, examples).mean(0).square().sum())
    here, new = coalitions + between * max(overlap - 1 / examples, 0.0), coalitions + between * overlap
    return Estimate(values, new.sqrt(), here.sqrt(), replicates)


FEWEST = 2  # degrees of freedom


def _replicates(samples: Sequence[Sample], examples: int, aggregate: Aggregate, values: Tensor) -> Tensor:
    """The jackknife's pseudo-values; of very many blocks some are left out together, (blocks or bundles, players)."""
    count = min(len(samples), MOST_LEFT_OUT)
    whole = totals(samples, examples)
    left = ((whole - totals(samples[part::count], examples)).pooled() for part in range(count))  # one at a time
    without = torch.stack([aggregate(each.values, each.noise) for each in left])
    return count * values - (count - 1) * without


def _by_examples(sample: Sample, aggregate: Aggregate) -> Tensor:
    """Pseudo-values by leaving out one example at a time, (examples, players)."""
    shares = sample.shares + sample.correction[:, None]
    count, nothing = shares.shape[1], torch.zeros(shares.shape[0], dtype=torch.float64)
    whole = aggregate(shares, nothing)
    if count < 2:
        return whole[None]
    parts = (torch.cat([shares[:, :place], shares[:, place + 1 :]], 1) for place in range(count))
    return torch.stack([count * whole - (count - 1) * aggregate(part, nothing) for part in parts])


def _between_examples(whole: Pooled) -> Tensor:
    """The variance of examples' own values, less what estimation adds to it; 0 where that is not known, (players,)."""
    used = whole.values[:, ~whole.values[0].isnan()]
    if used.shape[1] < 2:
        return torch.zeros_like(whole.noise)
    return (used.var(1) - whole.noise).clamp_min(0).nan_to_num(0)
