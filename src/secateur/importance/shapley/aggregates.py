"""Statistics from each example's values to one score per unit."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from secateur.errors import DataError, NameMatchError
from secateur.options import kind_text
from secateur.utils.failure_text import failure_text

Aggregate = Callable[[Tensor, Tensor], Tensor]


def mean(values: Tensor, noise: Tensor) -> Tensor:
    """The mean over examples: the Shapley value of the mean loss."""
    return values.nanmean(1)


def robust(values: Tensor, noise: Tensor) -> Tensor:
    """The mean and two standard deviations over examples (after Ancona et al. 2020), without the noise of sampling.

    The correction for the noise is our own.
    """
    used_counts = (~values.isnan()).sum(1)
    deviations = values - values.nanmean(1, keepdim=True)
    variance = deviations.square().nansum(1) / (used_counts - 1).clamp_min(1)
    return values.nanmean(1) + 2 * (variance - noise.nan_to_num(0)).clamp_min(0).sqrt()


def published(values: Tensor, noise: Tensor) -> Tensor:
    """Numpy's mean and two standard deviations over examples, as in the released code of Ancona et al.

    The variance is divided by the number of examples, and nothing is subtracted from it.
    """
    used_values = np.ascontiguousarray(values[:, ~values.isnan().any(0)].T.numpy())  # (examples, units)
    return torch.from_numpy(np.mean(used_values, 0) + 2 * np.std(used_values, 0))


def absolute(values: Tensor, noise: Tensor) -> Tensor:
    """The mean of the absolute values."""
    return values.abs().nanmean(1)


AGGREGATES: dict[str, Aggregate] = {"mean": mean, "robust": robust, "published": published, "absolute": absolute}

IN_WORDS = {
    "mean": "mean over examples",
    "robust": "mean + 2 standard deviations over examples",
    "published": "published mean + 2 standard deviations over examples",
    "absolute": "mean absolute value over examples",
}


def aggregate_in_words(aggregate: str | float | Callable[[Tensor], Tensor]) -> str:
    """Return what an aggregate, given as for `find_aggregate`, computes.

    Examples:
        >>> aggregate_in_words("robust"), aggregate_in_words(0.9)
        ('mean + 2 standard deviations over examples', 'quantile 0.9 over examples')
    """
    if isinstance(aggregate, str):
        return IN_WORDS[aggregate]
    if isinstance(aggregate, float):
        return f"quantile {aggregate:g} over examples"
    return f"{getattr(aggregate, '__name__', type(aggregate).__name__)} over examples"


def find_aggregate(aggregate: str | float | Callable[[Tensor], Tensor]) -> Aggregate:
    """Return an aggregate, given by name, as a quantile, or as a function from (units, examples) to (units,).

    Raises:
        NameMatchError: it is none of these.
    """
    if callable(aggregate):
        function = aggregate
        return lambda values, noise: _checked_scores(_call(function, values[:, ~values.isnan().any(0)]), len(values))
    if isinstance(aggregate, float) and 0 <= aggregate <= 1:
        level = aggregate
        return lambda values, noise: torch.nanquantile(values, level, dim=1)
    if not isinstance(aggregate, str) or aggregate not in AGGREGATES:
        raise NameMatchError(
            f"aggregate={aggregate!r} is unknown; known are {', '.join(AGGREGATES)}, a quantile between 0.0 and 1.0, "
            "or a function from (units, examples) to (units,)"
        )
    return AGGREGATES[str(aggregate)]


def _call(aggregate: Callable[[Tensor], Tensor], values: Tensor) -> object:
    """Call the user's own aggregate.

    Raises:
        DataError: it fails; the message holds its error.
    """
    try:
        return aggregate(values)
    except Exception as failure:
        raise DataError(
            f"aggregate= fails for values of shape {tuple(values.shape)}: {failure_text(failure)}"
        ) from failure


def _checked_scores(scores: object, units: int) -> Tensor:
    """Return the result of the user's own aggregate as scores.

    Raises:
        DataError: it is not one finite score per unit.
    """
    if not isinstance(scores, Tensor) or scores.shape != (units,):
        result = f"a tensor of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else kind_text(scores)
        raise DataError(f"aggregate= gave {result} where one score per unit, a tensor of shape ({units},), is needed")
    if not bool(torch.isfinite(scores).all()):
        raise DataError(f"aggregate= gave NaN or infinity for {int((~torch.isfinite(scores)).sum())} of {units} units")
    return scores.double()
