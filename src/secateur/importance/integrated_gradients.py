"""Integrated gradients of hidden units (Sundararajan et al. 2017; of hidden layers: Dhamdhere et al. 2019)."""

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.network import Group
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.losses import Reference
from secateur.importance.activation_taps import straight_through
from secateur.importance.context import CriterionContext
from secateur.importance.gates import need_examples_apart
from secateur.importance.registry import criterion

STEPS = 16


@criterion("integrated-gradients", options=(), uses="gradients")
def integrated_gradients(context: CriterionContext) -> dict[str, Tensor]:
    """The integral of z dL/dz as all units of the group grow from nothing to what they are, for each example, negated.

    From nothing, or from their means, as `ablation` says; at 16 points of Gauss and Legendre. The values of a group sum
    to what it adds to minus the loss: it is the Shapley value of that game where the loss is a polynomial of degree two
    in the units' presence, and the Aumann-Shapley value always.
    """
    context.need_examples("integrated-gradients")
    need_examples_apart(context.network, "l2")
    if context.moments:
        raise DataError("'integrated-gradients' has no path from predicted units; take ablation='mean' or 'zero'")
    found: dict[str, list[Tensor]] = {group.name: [] for group in context.groups}
    for cell in context.watched(context.cells, "integrated-gradients"):
        with torch.no_grad():
            dense = context.forward(cell)
        for group in context.groups:
            found[group.name].append(_along(context, group, cell, Reference(cell.target, dense)))
    return {name: torch.cat(parts, 1) for name, parts in found.items()}


def _along(context: CriterionContext, group: Group, cell: Batch, reference: Reference) -> Tensor:
    """The integral over the path, for each example of a cell. (units, examples)"""
    network, examples = context.network, cell.size or 1
    points, weights = np.polynomial.legendre.leggauss(STEPS)
    total = torch.zeros(group.size, examples, dtype=torch.float64)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        presence = torch.full((examples, group.size), float(point), device=network.device, requires_grad=True)
        masks = torch.ones(examples, network.units + 1, device=network.device)
        with torch.enable_grad():
            masks = torch.cat([masks[:, : group.offset], presence, masks[:, group.span.stop :]], 1)
            handlers = context.ablation.handlers(network, masks, network.readers_of(group))
            output = context.forward(cell, {**straight_through(network.program), **handlers})
            worth = -context.losses(output, reference, examples).sum()
        (slope,) = torch.autograd.grad(worth, presence, materialize_grads=True, allow_unused=True)
        total += float(weight) * slope.cpu().double().T
    return total
