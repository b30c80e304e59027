"""Criteria from one backward pass: sensitivity (Mittal et al. 2018) and Taylor (Molchanov et al. 2017).

All groups of the network are served by one forward and one backward pass over each example. A unit that is read in
several places (the channels of a residual stage) is judged by the gate that closes all of them: contributions are
added over its readers before any absolute value is taken.

Without labels the divergence from the dense network has no gradient at the dense network itself, so the loss is then
the cross entropy against the dense network's own top class.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.coupling.network import Group
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.losses import Reference
from secateur.evaluation.outputs import is_logits, main_output
from secateur.importance.activation_taps import (
    ActivationTap,
    activation_taps,
    straight_through,
    tap_handlers,
    taps_by_group,
)
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.taylor import Taylor

Measure = Callable[[Tensor, Tensor], Tensor]
NOTHING = 1e-10


@criterion("sensitivity", uses="gradients")
def sensitivity(context: CriterionContext) -> dict[str, Tensor]:
    """The absolute gradient of each example's loss by the activation, summed over space."""
    return over_gradients(context, "sensitivity", lambda z, g: g.abs())


@criterion("taylor-signed", config=Taylor(signed=True), uses="gradients")
def taylor_signed(context: CriterionContext, config: Taylor) -> dict[str, Tensor]:
    """The first-order estimate of how much each example's loss grows without the unit: -z dL/dz summed over space."""
    return over_gradients(context, "taylor-signed", lambda z, g: -z * g)


@criterion("taylor", config=Taylor(), uses="gradients")
def taylor(context: CriterionContext, config: Taylor) -> dict[str, Tensor]:
    """The absolute value, example by example, of the signed Taylor score (Molchanov et al. 2017, equation 8)."""
    return {name: values.abs() for name, values in over_gradients(context, "taylor", lambda z, g: -z * g).items()}


def over_gradients(context: CriterionContext, name: str, measure: Measure) -> dict[str, Tensor]:
    """The sum over positions of something of each unit's activation and of the gradient of an example's loss by it.

    Args:
        context: what a criterion is given.
        name: the criterion's, for what is said of it.
        measure: of a tensor of activations and its gradient, entry by entry.

    Returns:
        (units, examples) by group, as a criterion gives it.

    Raises:
        DataError: there are no examples, or the loss has no gradient at the dense network.
    """
    context.need_examples(name)
    sites = activation_taps(context)
    found = [_backward(context, sites, cell, measure) for cell in context.watched(context.microbatches, name)]
    scores = {group.name: torch.cat([part[group.name] for part in found], 1) for group in context.groups}
    unlabelled = any(cell.target is None for cell in context.microbatches)
    if unlabelled and all(float(values.abs().max()) < NOTHING for values in scores.values()):
        raise DataError(NO_GRADIENT)
    return scores


def _backward(
    context: CriterionContext, sites: tuple[ActivationTap, ...], cell: Batch, measure: Measure
) -> dict[str, Tensor]:
    def loss(output: Any) -> Tensor:
        return example_loss(context, cell, output).sum()

    return backward_through(context, sites, context.groups, cell, measure, loss)


def backward_through(
    context: CriterionContext,
    sites: tuple[ActivationTap, ...],
    groups: Sequence[Group],
    cell: Batch,
    measure: Measure,
    loss: Callable[[Any], Tensor],
) -> dict[str, Tensor]:
    """The measure of every site's activation and gradient, summed over space into units, (units, examples)."""
    examples = cell.size or 1
    seen: list[tuple[ActivationTap, Tensor]] = []

    def tap(site: ActivationTap, x: Tensor) -> Tensor:
        gate = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

        def on_gradient(gradient: Tensor) -> None:
            values = measure(x.detach(), gradient)
            seen.append((site, site.rows(values, examples) * site.places(values, examples)))

        gate.register_hook(on_gradient)
        return gate

    with torch.enable_grad():
        loss(
            context.forward(cell, {**straight_through(context.network.program), **tap_handlers(sites, tap)})
        ).backward()
    return taps_by_group(context.network, groups, seen, examples)


def example_loss(context: CriterionContext, cell: Batch, output: Any) -> Tensor:
    """A loss of each example that has a gradient, (examples,)."""
    losses = context.losses(output, _reference(context, cell, output), cell.size or 1)
    if not losses.requires_grad:
        raise DataError(
            "the loss has no gradient by the network's output: leave out .detach(), .item(), torch.no_grad() and numpy "
            "in loss=, or rank by a criterion that needs no gradients, such as 'shapley', 'obs' or 'apoz'"
        )
    return losses


def _reference(context: CriterionContext, cell: Batch, output: Any) -> Reference:
    """A cell's labels; else the dense output for a loss of the user's own, and the top class for the default one.

    Raises:
        DataError: there are no labels, no loss, and no classes.
    """
    if cell.target is not None:
        return Reference(cell.target, None)
    if context.loss is not None:
        return Reference(
            None, pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)
        )
    if not is_logits(output):
        raise DataError(NO_GRADIENT)
    return Reference(main_output(output).detach().argmax(-1), None)


NO_GRADIENT = (
    "criteria that use gradients need labels here: a divergence from the dense network has no gradient at the dense "
    "network; give (inputs, target) batches, or rank by 'shapley', 'leave-one-out', 'apoz' or 'l1'"
)
