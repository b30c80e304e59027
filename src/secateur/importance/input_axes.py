"""Inputs that a network refuses, and takes with other axes: without a batch axis, with channels last, and others.

Each change is tried on the network, so that an error only advises what works.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.evaluation.outputs import main_output

IMAGE_DIMS = 3  # axes of an image or a sequence of vectors without or with examples; graphs and point sets have two


@dataclass(frozen=True)
class AxisChange:
    """A change of the axes of all inputs.

    Args:
        fault: what is wrong with the inputs, if the change is right.
        remedy: what to give.
        change: the change of one tensor.
        applies: returns True for tensors that can be changed.
        adds_examples: whether the changed inputs are one example.
    """

    fault: str
    remedy: str
    change: Callable[[Tensor], Tensor]
    applies: Callable[[Tensor], bool]
    adds_examples: bool = False


AXIS_CHANGES = (
    AxisChange(
        "the batch axis is missing",
        "give batches of examples, by torch.utils.data.DataLoader or torch.stack(examples), and a single example as "
        "x.unsqueeze(0)",
        lambda tensor: tensor.unsqueeze(0),
        lambda tensor: True,
        adds_examples=True,
    ),
    AxisChange(
        "there is an axis of length 1 after the batch axis",
        "give x.squeeze(1); items of a data set have no batch axis of their own, as a DataLoader adds it",
        lambda tensor: tensor.squeeze(1),
        lambda tensor: tensor.dim() > 1 and tensor.shape[1] == 1,
    ),
    AxisChange(
        "the axis of channels is missing",
        "give x.unsqueeze(1)",
        lambda tensor: tensor.unsqueeze(1),
        lambda tensor: tensor.dim() > 1,
    ),
    AxisChange(
        "the channels are last",
        "give x.movedim(-1, 1)",
        lambda tensor: tensor.movedim(-1, 1),
        lambda tensor: tensor.dim() > IMAGE_DIMS - 1,
    ),
    AxisChange(
        "each example has several axes",
        "give x.flatten(1)",
        lambda tensor: tensor.flatten(1),
        lambda tensor: tensor.dim() > IMAGE_DIMS - 1,
    ),
)


def advice_on_axes(run: Callable[[Batch], Any], batch: Batch, examples: Batch) -> str:
    """Return what is wrong with the axes of a batch that a network refuses, and what to give.

    Args:
        run: a function from a batch to the network's output.
        batch: the batch.
        examples: its first examples, if its first axis has the examples.

    Returns:
        The advice; empty where no change of the axes leads to an output for each example.
    """
    for change in AXIS_CHANGES:
        refused = batch if change.adds_examples else examples
        if not all(map(change.applies, refused.tensors)):
            continue
        changed = with_inputs(refused, change.change)
        try:
            output = main_output(run(changed))
        except SecateurError:
            continue
        if output.shape[:1] == changed.tensors[0].shape[:1]:
            shapes = f"inputs of {shapes_of(refused)} are refused, and {shapes_of(changed)} taken"
            return f"{shapes}: {change.fault}; {change.remedy}"
    return ""


def is_unbatched(run: Callable[[Batch], Any], batch: Batch, output: Any) -> bool:
    """Return whether a batch that can't be divided is one image or sequence: two of them give its output twice.

    Args:
        run: a function from a batch to the network's output.
        batch: the batch, of which the network refuses single entries.
        output: the network's output on it.
    """
    if batch.is_one_example or not batch.tensors or any(tensor.dim() < IMAGE_DIMS for tensor in batch.tensors):
        return False
    twice = with_inputs(batch, lambda tensor: torch.stack([tensor, tensor]))
    try:
        pair = main_output(run(twice))
    except SecateurError:
        return False
    single = main_output(output)
    return pair.shape == (2, *single.shape) and torch.allclose(
        pair, torch.stack([single, single]), atol=1e-4, rtol=1e-3
    )


def with_inputs(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return a batch without targets whose input tensors are changed."""
    args, kwargs = pytree.tree_map_only(Tensor, change, (batch.args, dict(batch.kwargs)))
    return replace(batch.without_target(), args=args, kwargs=kwargs)


def shapes_of(batch: Batch) -> str:
    """Return the shapes of a batch's inputs, in words."""
    shapes = [str(tuple(tensor.shape)) for tensor in batch.tensors]
    return f"{'shape' if len(shapes) == 1 else 'shapes'} {', '.join(shapes)}"
