"""Criteria from one backward pass: sensitivity (Mittal et al. 2018) and Taylor (Molchanov et al. 2017).

One forward and one backward pass over each example serve all groups of the network. A unit that several operators read
(a channel of a residual stage) is scored by the gate that closes all of them: contributions are added over its
consumers before any absolute value is taken.

Without labels the divergence from the dense network has no gradient at the dense network itself, so the loss is then
the cross entropy against the dense network's own top class.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.coupling.group import Group
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.losses import Reference
from secateur.evaluation.outputs import is_logits, main_output, with_named_scores
from secateur.importance.activation_taps import (
    ActivationTap,
    tap_handlers,
    tapped_context,
    taps_by_group,
)
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.taylor import Taylor
from secateur.masking.straight_through import straight_through
from secateur.options.call_checks import checked_calls
from secateur.utils.dtypes import as_real

GradientMeasure = Callable[[Tensor, Tensor], Tensor]
MIN_GRADIENT = 1e-10


@criterion("sensitivity", uses="gradients")
def sensitivity(context: CriterionContext) -> dict[str, Tensor]:
    """The absolute gradient of each example's loss by the activation, summed over space."""
    return over_gradients(context, "sensitivity", lambda z, g: g.abs())


@criterion("taylor-signed", config=Taylor(signed=True), uses="gradients")
def taylor_signed(context: CriterionContext, config: Taylor) -> dict[str, Tensor]:
    """The first-order estimate of each example's increase of the loss without the unit: -z dL/dz summed over space."""
    return over_gradients(context, "taylor-signed", lambda z, g: -z * g)


@criterion("taylor", config=Taylor(), uses="gradients")
def taylor(context: CriterionContext, config: Taylor) -> dict[str, Tensor]:
    """The absolute value, example by example, of the signed Taylor score (Molchanov et al. 2017, equation 8)."""
    return {name: values.abs() for name, values in over_gradients(context, "taylor", lambda z, g: -z * g).items()}


@checked_calls
def over_gradients(context: CriterionContext, name: str, measure: GradientMeasure) -> dict[str, Tensor]:
    """Return the sum over positions of a function of each unit's activation and of its gradient.

    Args:
        context: the criterion's input.
        name: the criterion's name, for messages.
        measure: an elementwise function of a tensor of activations and its gradient.

    Returns:
        The sums by group (units, examples), as a criterion returns them.

    Raises:
        DataError: there are no examples, or the loss has no gradient at the dense network.
    """
    context.need_examples(name)
    context, taps = tapped_context(context)
    sums = [_backward(context, taps, batch, measure) for batch in context.watched(context.microbatches, name)]
    scores = {group.name: torch.cat([by_group[group.name] for by_group in sums], 1) for group in context.groups}
    is_unlabelled = any(batch.target is None for batch in context.microbatches)
    if is_unlabelled and all(float(values.abs().max()) < MIN_GRADIENT for values in scores.values()):
        raise DataError(NO_GRADIENT)
    return scores


def _backward(
    context: CriterionContext, taps: tuple[ActivationTap, ...], batch: Batch, measure: GradientMeasure
) -> dict[str, Tensor]:
    def loss(output: Any) -> Tensor:
        return example_loss(context, batch, output).sum()

    return backward_through(context, taps, context.groups, batch, measure, loss)


def backward_through(
    context: CriterionContext,
    taps: tuple[ActivationTap, ...],
    groups: Sequence[Group],
    batch: Batch,
    measure: GradientMeasure,
    loss: Callable[[Any], Tensor],
) -> dict[str, Tensor]:
    """Return a function of every tap's activation and gradient, summed over positions into units, (units, examples).

    Args:
        context: the criterion's input.
        taps: the taps.
        groups: the groups to score.
        batch: the examples.
        measure: an elementwise function of activations and gradients.
        loss: a function from the output to the scalar that is differentiated.
    """
    examples = batch.size or 1
    rows: list[tuple[ActivationTap, Tensor]] = []

    def with_hook(tap: ActivationTap, x: Tensor) -> Tensor:
        gate = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

        def on_gradient(gradient: Tensor) -> None:
            values = measure(as_real(x.detach()), as_real(gradient))
            rows.append((tap, tap.rows(values, examples) * tap.entries_per_mean(values, examples)))

        gate.register_hook(on_gradient)
        return gate

    with torch.enable_grad():
        handlers = {**straight_through(context.network.program), **tap_handlers(taps, with_hook)}
        loss(context.forward(batch, handlers)).backward()
    return taps_by_group(context.network, groups, rows, examples)


def example_loss(context: CriterionContext, batch: Batch, output: Any) -> Tensor:
    """Return a loss of each example that has a gradient, (examples,).

    Raises:
        DataError: there is none.
    """
    losses = context.losses(output, _reference(context, batch, output), batch.size or 1)
    if not losses.requires_grad:
        raise DataError(
            "the loss has no gradient by the network's output: leave out .detach(), .item(), torch.no_grad() and numpy "
            "in loss=, or rank by a criterion that needs no gradients, such as 'shapley', 'obs' or 'apoz'"
        )
    return losses


def _reference(context: CriterionContext, batch: Batch, output: Any) -> Reference:
    """Return the labels; else the dense output for the user's own loss, and the top class for the default one.

    Raises:
        DataError: there are no labels, no loss, and no classes.
    """
    if batch.target is not None:
        return Reference(batch.target, None, has_token_scores=batch.has_token_scores)
    if context.loss is not None:
        return Reference(
            None, pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)
        )
    if not is_logits(with_named_scores(output, batch.has_token_scores)):
        raise DataError(NO_GRADIENT)
    return Reference(main_output(output).detach().argmax(-1), None, has_token_scores=batch.has_token_scores)


NO_GRADIENT = (
    "criteria that use gradients need labels here: a divergence from the dense network has no gradient at the dense "
    "network; give (inputs, target) batches, or rank by 'shapley', 'leave-one-out', 'apoz' or 'l1'"
)
