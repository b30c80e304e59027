"""Losses of examples: against labels where there are any, else against the dense network's own output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.errors import DataError, SecateurError
from secateur.evaluation.divergence import divergence
from secateur.evaluation.outputs import main_output, per_example, with_named_scores
from secateur.evaluation.targets import IGNORED, check_target
from secateur.options import kind_text
from secateur.utils.default_device import on_callers_device
from secateur.utils.dtypes import at_least_single
from secateur.utils.failure_text import failure_text

Loss = Callable[[Any, Any], Tensor]


def supervised_losses(output: Any, target: Any, examples: int | None = None) -> Tensor:
    """Return the cross entropy against class numbers, or the squared error against other targets, (examples,).

    The cross entropy of an example is the mean over its labels that count: all but -100.

    Args:
        output: the network's output.
        target: the targets.
        examples: the number of examples; 1 where all rows of the output are of one, such as the nodes of a graph. By
            default each row is one.

    Raises:
        TargetError: the targets do not fit the output.
    """
    scores = at_least_single(main_output(output))
    labels, classes_last = check_target(output, target)
    if scores.dim() == 1 and not labels.is_floating_point():  # the class scores of one example
        scores, labels = scores[None], labels.reshape(1)
    if labels.is_floating_point():
        return (scores - labels).square().flatten(1).mean(1) if scores.dim() > 1 else (scores - labels).square()
    scores = scores.transpose(1, 2) if classes_last else scores
    losses = F.cross_entropy(scores, labels.long(), reduction="none")
    is_counted = (labels != IGNORED).to(losses.dtype)
    losses, is_counted = (per_example(values[None] if examples == 1 else values) for values in (losses, is_counted))
    return losses / is_counted.where(is_counted > 0, torch.ones_like(is_counted))


@dataclass(frozen=True)
class Reference:
    """The reference of losses: labels, or else the dense network's own output.

    Args:
        labels: the labels, or None.
        dense: the dense network's output.
        scales: the mean squares of its outputs over all examples, as `output_scales` returns them; None for those of
            this output.
        has_token_scores: whether outputs are plain tensors of class scores of each token, see `Batch`.
    """

    labels: Any
    dense: Any
    scales: Sequence[Tensor] | None = None
    has_token_scores: bool = False


def example_losses(loss: Loss | None, output: Any, reference: Reference, examples: int) -> Tensor:
    """Return one finite loss per example, (examples,).

    Args:
        loss: the user's own; None for cross entropy or squared error with labels, and the divergence without.
        output: the network's output.
        reference: the reference of the loss.
        examples: the number of examples.

    Raises:
        DataError: the labels don't fit, or the loss gives something else.
    """
    if loss is not None:
        against = reference.dense if reference.labels is None else reference.labels
        return _finite_losses(_user_loss(loss, output, against), examples)
    scores = with_named_scores(output, reference.has_token_scores)
    if reference.labels is not None:
        return _finite_losses(supervised_losses(scores, reference.labels, examples), examples)
    dense = with_named_scores(reference.dense, reference.has_token_scores)
    return _finite_losses(divergence(scores, dense, reference.scales), examples)


def by_example(values: Tensor, examples: int) -> Tensor:
    """Return one loss per example: their mean where there is one example, such as a graph with many nodes."""
    return values.mean().reshape(1) if examples == 1 and values.numel() and values.is_floating_point() else values


def _user_loss(loss: Loss, output: Any, against: Any) -> Any:
    """Call a loss of the user's own.

    Raises:
        DataError: it fails; its own error is shown.
    """
    try:
        return on_callers_device(loss)(output, against)
    except SecateurError:
        raise
    except Exception as failure:
        raise DataError(
            f"loss= fails for {kind_text(output)} as the output and {kind_text(against)} as the target: "
            f"{failure_text(failure)}"
        ) from failure


def _finite_losses(values: Any, examples: int) -> Tensor:
    """Check that a loss is one finite number per example.

    Raises:
        DataError: it is something else.
    """
    values = by_example(values, examples) if isinstance(values, Tensor) else values
    if not isinstance(values, Tensor) or values.shape != (examples,):
        loss_form = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise DataError(
            f"the loss gave {loss_form} where one value per example, ({examples},), is needed; use reduction='none'"
        )
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise DataError(
            f"the loss is NaN or infinite for {bad} of {examples} examples; correct the loss or leave them out"
        )
    return values
