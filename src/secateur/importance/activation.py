"""Criteria of activations: the fraction above zero (APoZ, Hu et al. 2016), and any other function of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.importance.activation_taps import ActivationTap, tap_handlers, tapped_context, taps_by_group
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.options.call_checks import checked_calls
from secateur.utils.dtypes import as_real

Measure = Callable[[Tensor], Tensor]


@criterion("apoz", uses="nothing")
def apoz(context: CriterionContext) -> dict[str, Tensor]:
    """The fraction of positions at which the unit's activation, where it is read, is above zero (1 - APoZ)."""
    context.need_examples("apoz")
    return over_activations(context, lambda z: z > 0)


@checked_calls
def over_activations(context: CriterionContext, measure: Measure) -> dict[str, Tensor]:
    """Return the mean of a function of each unit's activation, over positions and over the tensors it is read from.

    Args:
        context: the criterion's input.
        measure: an elementwise function of a tensor of activations; of complex ones it takes both parts.

    Returns:
        The means by group (units, examples), as a criterion returns them.

    Examples:
        >>> import torch, secateur as sc
        >>> @sc.criterion("strength")
        ... def strength(context):
        ...     return over_activations(context, lambda z: z.abs())
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> data = torch.randn(64, 4)
        >>> scores = sc.score(sc.trace(model, data), data, by="strength", progress=False)
        >>> torch.allclose(scores["0"].values, model[:2](data).abs().mean(0).double(), atol=1e-6)
        True
    """
    context, taps = tapped_context(context)
    ones = torch.ones(1, 1, dtype=torch.float64)
    counts = taps_by_group(context.network, context.groups, ((tap, ones.expand(len(tap.units), 1)) for tap in taps), 1)
    batches = context.watched(context.microbatches, "activations")
    sums = [_measured_taps(context, taps, batch, measure) for batch in batches]
    return {name: torch.cat([by_group[name] for by_group in sums], 1) / counts[name].clamp_min(1) for name in counts}


def _measured_taps(
    context: CriterionContext, taps: tuple[ActivationTap, ...], batch: Batch, measure: Measure
) -> dict[str, Tensor]:
    rows: list[tuple[ActivationTap, Tensor]] = []

    def record(tap: ActivationTap, x: Tensor) -> Tensor:
        rows.append((tap, tap.rows(measure(as_real(x)), batch.size or 1)))
        return x

    with torch.no_grad():
        context.forward(batch, tap_handlers(taps, record))
    return taps_by_group(context.network, context.groups, rows, batch.size or 1)
