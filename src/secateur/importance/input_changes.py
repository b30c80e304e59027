"""Inputs that a network refuses, and takes in another form: without a batch axis, with channels last, and others.

Each change is tried on the network, so that an error only advises what works.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch

IMAGE_DIMS = 3  # axes of an image or a sequence of vectors without or with examples; graphs and point sets have two


@dataclass(frozen=True)
class InputChange:
    """A change of the inputs of a batch.

    Args:
        fault: what is wrong with the inputs, if the change is right.
        remedy: what to give.
        change: a function from a batch to the changed batch, or to None where it does not apply.
        adds_examples: whether the whole batch becomes one example.
    """

    fault: str
    remedy: str
    change: Callable[[Batch], Batch | None]
    adds_examples: bool = False


def of_axes(change: Callable[[Tensor], Tensor], least_dims: int, length: int | None = None) -> Callable[..., Any]:
    """Return the change of a batch that changes the axes of all inputs.

    Args:
        change: the change of one tensor.
        least_dims: the number of axes that every input has at least.
        length: of the second axis of every input, if it must be known.
    """

    def change_batch(batch: Batch) -> Batch | None:
        applies = all(
            tensor.dim() >= least_dims and (length is None or tensor.shape[1] == length) for tensor in batch.tensors
        )
        return with_inputs(batch, change) if applies else None

    return change_batch


def with_target_as_input(batch: Batch) -> Batch | None:
    """Return a batch whose target is a further input."""
    is_input = isinstance(batch.target, Tensor) and not batch.kwargs
    return replace(batch, args=(*batch.args, batch.target), target=None) if is_input else None


def with_inputs_as_one(batch: Batch) -> Batch | None:
    """Return a batch whose inputs are one argument: a dict or a list."""
    if batch.kwargs and not batch.args:
        return replace(batch, args=(dict(batch.kwargs),), kwargs={})
    return replace(batch, args=(list(batch.args),)) if len(batch.args) > 1 and not batch.kwargs else None


def with_first_alone(batch: Batch) -> Batch | None:
    """Return a batch with the first of its named inputs, by position."""
    values = list(batch.kwargs.values())
    return replace(batch, args=(values[0],), kwargs={}) if values and not batch.args else None


BATCH_AXIS = InputChange(
    "the batch axis is missing",
    "give batches of examples, by torch.utils.data.DataLoader or torch.stack(examples), and a single example as "
    "x.unsqueeze(0)",
    of_axes(lambda tensor: tensor.unsqueeze(0), 0),
    adds_examples=True,
)
INPUT_CHANGES = (
    BATCH_AXIS,
    InputChange(
        "there is an axis of length 1 after the batch axis",
        "give x.squeeze(1); items of a data set have no batch axis of their own, as a DataLoader adds it",
        of_axes(lambda tensor: tensor.squeeze(1), 2, length=1),
    ),
    InputChange(
        "the axis of channels is missing", "give x.unsqueeze(1)", of_axes(lambda tensor: tensor.unsqueeze(1), 2)
    ),
    InputChange(
        "the channels are last", "give x.movedim(-1, 1)", of_axes(lambda tensor: tensor.movedim(-1, 1), IMAGE_DIMS)
    ),
    InputChange(
        "each example has several axes", "give x.flatten(1)", of_axes(lambda tensor: tensor.flatten(1), IMAGE_DIMS)
    ),
    InputChange(
        "a pair is read as (inputs, target)",
        "give the inputs as one tuple: ((a, b), target), or ((a, b),) without targets",
        with_target_as_input,
    ),
    InputChange(
        "the model takes the inputs as one argument",
        "give a tuple that holds the dict or the list: ((inputs,), target), or ((inputs,),) without targets",
        with_inputs_as_one,
    ),
    InputChange(
        "the model's `forward` has other names, and takes the first of these inputs alone",
        "give (inputs, target), such as (batch['image'], batch['label'])",
        with_first_alone,
    ),
)


def with_inputs(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return a batch without targets whose input tensors are changed."""
    args, kwargs = pytree.tree_map_only(Tensor, change, (batch.args, dict(batch.kwargs)))
    return replace(batch.without_target(), args=args, kwargs=kwargs)
