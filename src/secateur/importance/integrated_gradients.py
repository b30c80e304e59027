"""Integrated gradients of hidden units (Sundararajan et al. 2017; of hidden layers: Dhamdhere et al. 2019)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.losses import Reference
from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.context import CriterionContext
from secateur.importance.gates import check_divisible_batches
from secateur.importance.registry import criterion
from secateur.masking.straight_through import straight_through
from secateur.options.call_checks import checked_calls
from secateur.options.table import OPTIONS


@checked_calls
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(CriterionConfig):
    """Options of integrated gradients.

    Args:
        steps: the number of points of the Gauss-Legendre quadrature, each of which takes one backward pass per group.
    """

    steps: int = option_field(16, OPTIONS["steps"])


@criterion("integrated-gradients", config=IntegratedGradients(), uses="gradients")
def integrated_gradients(context: CriterionContext, config: IntegratedGradients) -> dict[str, Tensor]:
    """The integral of -z dL/dz as all units of the group grow from their ablation to their values, for each example.

    The path starts at zero, or at the units' means, as `ablation` says. The values of a group sum to its gain of minus
    the loss: they are the Shapley value of that game where the loss is a polynomial of degree two in the units'
    presence, and the Aumann-Shapley value always.

    Raises:
        DataError: there are no examples, or the network or the ablation has no path for each example.
    """
    context.need_examples("integrated-gradients")
    check_divisible_batches(context.network, "l2")
    if context.moments:
        raise DataError("'integrated-gradients' has no path from predicted units; take ablation='mean' or 'zero'")
    integrals: dict[str, list[Tensor]] = {group.name: [] for group in context.groups}
    for batch in context.watched(context.microbatches, "integrated-gradients"):
        with torch.no_grad():
            dense = context.forward(batch)
        scales = context.output_scales if batch.target is None else None
        reference = Reference(batch.target, dense, scales, batch.has_token_scores)
        for group in context.groups:
            integrals[group.name].append(_path_integral(context, config.steps, group, batch, reference))
    return {name: torch.cat(by_batch, 1) for name, by_batch in integrals.items()}


def _path_integral(context: CriterionContext, steps: int, group: Group, batch: Batch, reference: Reference) -> Tensor:
    """Return the integral over the path, for each example of a microbatch, (units, examples)."""
    network, examples = context.network, batch.size or 1
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros(group.size, examples, dtype=torch.float64)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        presence = torch.full((examples, group.size), float(point), device=network.device, requires_grad=True)
        masks = torch.ones(examples, network.units + 1, device=network.device)
        with torch.enable_grad():
            masks = torch.cat([masks[:, : group.offset], presence, masks[:, group.span.stop :]], 1)
            handlers = context.ablation.handlers(network, masks, network.consumers_of(group))
            output = context.forward(batch, {**straight_through(network.program), **handlers})
            value = -context.losses(output, reference, examples).sum()
        (slope,) = torch.autograd.grad(value, presence, materialize_grads=True, allow_unused=True)
        total += float(weight) * slope.cpu().double().T
    return total
