"""Targets and the loss, checked on the network's output for a few examples of each kind of batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch, on_device
from secateur.errors import BudgetError, DataError, TargetError
from secateur.evaluation.losses import Loss, Reference, example_losses
from secateur.evaluation.outputs import is_logits, main_output
from secateur.evaluation.targets import IGNORED, check_target
from secateur.importance.context import MICROBATCH
from secateur.importance.registry import Use
from secateur.options import kind_text
from secateur.utils.collected_warnings import warn


def check_losses(
    outputs_of_examples: Sequence[tuple[Batch, Any]], batches: Sequence[Batch], loss: Loss | None, use: Use
) -> None:
    """Check that losses can be taken of all batches.

    Args:
        outputs_of_examples: for each batch some examples and the network's output, as `check_inputs` returns them.
        batches: the examples.
        loss: the user's loss, or None.
        use: what the criterion reads of losses.

    Raises:
        TargetError: targets do not fit the default loss.
        DataError: the user's own loss fails, does not give one finite value per example, or has no gradient.
    """
    if loss is None:
        for batch, (_, output) in zip(batches, outputs_of_examples, strict=True):
            if batch.target is not None:
                check_target(output, batch.target, None if batch.is_one_example else batch.size)
        _check_that_labels_count([batch.target for batch in batches])
        _warn_of_one_hot(outputs_of_examples)
    for number, batch in enumerate(batches):
        if (batch.size or 0) > MICROBATCH and not batch.has_target_by_example and loss is not None:
            raise DataError(
                f"batch {number} has {batch.size} examples, which are taken in parts of {MICROBATCH}, but its targets "
                "have no entry for each example; give tensors or lists with one, or smaller batches"
            )
    for examples, output in {id(output): (examples, output) for examples, output in outputs_of_examples}.values():
        with torch.set_grad_enabled(use == "gradients"):
            outputs = pytree.tree_map(_as_leaf, output)
            target = on_device(Batch((), {}, examples.target), main_output(output).device).target
            values = example_losses(loss, outputs, Reference(target, output), examples.size or 1)
        if use == "gradients" and loss is not None and not values.requires_grad:
            raise DataError(
                "loss= has no gradient by the network's output: leave out .detach(), .item(), torch.no_grad() and "
                "numpy, or rank by a criterion that needs no gradients, such as 'shapley', 'obs' or 'apoz'"
            )


def _check_that_labels_count(targets: Sequence[Any]) -> None:
    """Check that some label counts, where all targets are class numbers.

    Raises:
        TargetError: all labels are -100, so that every loss is 0.
    """
    labels = [target for target in targets if isinstance(target, Tensor) and not target.is_floating_point()]
    if labels and len(labels) == len(targets) and all(bool((target == IGNORED).all()) for target in labels):
        raise TargetError(
            f"all labels are {IGNORED}, which marks what does not count, so there is no loss to measure; give the "
            "labels of what counts, inputs alone, or loss="
        )


def _as_leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_(torch.is_grad_enabled())
    return value


def _warn_of_one_hot(outputs_of_examples: Sequence[tuple[Batch, Any]]) -> None:
    """Warn of floating-point targets of a regression that look like one-hot class labels."""
    if outputs_of_examples and all(_looks_one_hot(examples.target, output) for examples, output in outputs_of_examples):
        warn(
            "the targets look like one-hot labels, but floating-point targets are compared by their squared error; for "
            "cross entropy give class numbers, target.argmax(1), or loss="
        )


def _looks_one_hot(target: Any, output: Any) -> bool:
    """Return True for floating-point targets of class scores with one 1 in each row, and 0 beside it."""
    if not isinstance(target, Tensor) or not target.is_floating_point() or target.dim() != 2 or not is_logits(output):
        return False
    return bool(((target == 0) | (target == 1)).all() and (target.sum(1) == 1).all())


def check_class_targets(batches: Sequence[Batch]) -> None:
    """Check that an accuracy can be computed of all targets.

    Raises:
        BudgetError: targets are no class numbers.
    """
    for number, batch in enumerate(batches):
        target = batch.target
        if target is not None and (not isinstance(target, Tensor) or target.is_floating_point()):
            kind = f"of {target.dtype}" if isinstance(target, Tensor) else kind_text(target)
            raise BudgetError(
                f"a bound on the accuracy needs class numbers, but the targets of batch {number} are {kind}; give "
                "class numbers, inputs alone, or a bound on the loss, {'loss': 0.05}"
            )
