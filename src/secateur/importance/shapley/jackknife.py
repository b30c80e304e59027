"""Scores of units from the samples of blocks, with standard errors by the jackknife."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.estimates import (
    MAX_REPLICATES,
    Pooled,
    Sample,
    are_exact,
    degrees_of_freedom,
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
        errors_here: standard errors for these examples, which more coalitions reduce to zero.
        replicates: the jackknife's pseudo-values, (blocks, players), whose mean and spread give value and error; where
            there are very many blocks, of bundles of them.
    """

    values: Tensor
    errors: Tensor
    errors_here: Tensor
    replicates: Tensor


def jackknife_estimate(samples: Sequence[Sample], examples: int, aggregate: Aggregate) -> Estimate:
    """Return the aggregate of samples, with its standard errors.

    The jackknife omits one block at a time, so its error is that of the blocks: of the coalitions, and of the examples
    as far as blocks differ in them. For the mean the two are separated where examples are in several blocks (with all
    in every block, a two-way design): the deviation of a block from its examples' means is the error of the coalitions.
    The variance between examples, without the noise of sampling, counts wholly for other examples, and for these ones
    as far as some were not used. Where the two can't be separated, and for other aggregates, the jackknife's error
    stands for both. Where shares are exact, one example is omitted at a time, and there is no error for these examples.
    """
    pooled_samples = pool_samples(samples, examples)
    values = aggregate(pooled_samples.values, pooled_samples.noise)
    count = len(samples)
    if count == 1 or are_exact(samples, examples):
        replicates = _by_examples(pooled_samples.values[:, ~pooled_samples.values.isnan().any(0)], aggregate)
        error = replicates.std(0) / len(replicates) ** 0.5 if len(replicates) > 1 else torch.zeros_like(values)
        return Estimate(values, error, torch.zeros_like(values), replicates)
    replicates = _replicates(samples, examples, aggregate, values)
    variance = replicates.var(0) / len(replicates)
    freedom = degrees_of_freedom(samples, examples)
    if aggregate is not mean or freedom < MIN_FREEDOM:
        return Estimate(values, variance.sqrt(), variance.sqrt(), replicates)
    block_means = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples])
    expected_values = torch.stack([pooled_samples.values[:, sample.examples].mean(1) for sample in samples])
    coalitions = (block_means - expected_values).square().sum(0) / freedom / count
    between = _between_examples(pooled_samples)
    overlap = float(sample_weights(samples, examples).mean(0).square().sum())
    here, new = coalitions + between * max(overlap - 1 / examples, 0.0), coalitions + between * overlap
    return Estimate(values, new.sqrt(), here.sqrt(), replicates)


MIN_FREEDOM = 2  # degrees


def _replicates(samples: Sequence[Sample], examples: int, aggregate: Aggregate, values: Tensor) -> Tensor:
    """Return the jackknife's pseudo-values; many blocks are omitted in bundles, (blocks or bundles, players)."""
    count = min(len(samples), MAX_REPLICATES)
    whole = totals(samples, examples)
    remainders = ((whole - totals(samples[start::count], examples)).pooled() for start in range(count))  # one at a time
    without = torch.stack([aggregate(pooled.values, pooled.noise) for pooled in remainders])
    return count * values - (count - 1) * without


def _by_examples(values: Tensor, aggregate: Aggregate) -> Tensor:
    """Return pseudo-values by omitting one example's values (players, examples) at a time, (examples, players)."""
    count, no_noise = values.shape[1], torch.zeros(values.shape[0], dtype=torch.float64)
    whole_estimate = aggregate(values, no_noise)
    if count < 2:
        return whole_estimate[None]
    remainders = (torch.cat([values[:, :index], values[:, index + 1 :]], 1) for index in range(count))
    return torch.stack(
        [count * whole_estimate - (count - 1) * aggregate(remainder, no_noise) for remainder in remainders]
    )


def _between_examples(pooled_samples: Pooled) -> Tensor:
    """Return the variance of examples' values without the noise of sampling; 0 where it is unknown, (players,)."""
    used_values = pooled_samples.values[:, ~pooled_samples.values[0].isnan()]
    if used_values.shape[1] < 2:
        return torch.zeros_like(pooled_samples.noise)
    return (used_values.var(1) - pooled_samples.noise).clamp_min(0).nan_to_num(0)
