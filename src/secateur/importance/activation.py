"""APoZ (Hu et al. 2016): how often a unit's activation is above zero; and anything else of activations."""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.importance.activation_taps import ActivationTap, activation_taps, tap_handlers, taps_by_group
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion

Of = Callable[[Tensor], Tensor]


@criterion("apoz", uses="nothing")
def apoz(context: CriterionContext) -> dict[str, Tensor]:
    """The fraction of positions at which the unit's activation, where it is read, is above zero (1 - APoZ)."""
    context.need_examples("apoz")
    return over_activations(context, lambda z: z > 0)


def over_activations(context: CriterionContext, measure: Of) -> dict[str, Tensor]:
    """The mean over positions, and over places where a unit is read, of something of its activation.

    Args:
        context: what a criterion is given.
        measure: of a tensor of activations, entry by entry.

    Returns:
        (units, examples) by group, as a criterion gives it.

    Example:
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
    sites = activation_taps(context)
    ones = torch.ones(1, 1, dtype=torch.float64)
    counts = taps_by_group(
        context.network, context.groups, ((site, ones.expand(len(site.units), 1)) for site in sites), 1
    )
    found = [_measured(context, sites, cell, measure) for cell in context.watched(context.microbatches, "activations")]
    return {name: torch.cat([part[name] for part in found], 1) / counts[name].clamp_min(1) for name in counts}


def _measured(
    context: CriterionContext, sites: tuple[ActivationTap, ...], cell: Batch, measure: Of
) -> dict[str, Tensor]:
    seen: list[tuple[ActivationTap, Tensor]] = []

    def look(site: ActivationTap, x: Tensor) -> Tensor:
        seen.append((site, site.rows(measure(x), cell.size or 1)))
        return x

    with torch.no_grad():
        context.forward(cell, tap_handlers(sites, look))
    return taps_by_group(context.network, context.groups, seen, cell.size or 1)
