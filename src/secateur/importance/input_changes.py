"""Inputs that a network refuses, and takes in another form: without a batch axis, with channels last, and others.

Each change is tried on the network, so that an error only advises what works.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.evaluation.outputs import main_output

IMAGE_DIMS = 3  # axes of an image or a sequence of vectors without or with examples; graphs and point sets have two
Run = Callable[[Batch], Any]


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

    def changed(batch: Batch) -> Batch | None:
        applies = all(
            tensor.dim() >= least_dims and (length is None or tensor.shape[1] == length) for tensor in batch.tensors
        )
        return with_inputs(batch, change) if applies else None

    return changed


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

RESULTS_BY_IMAGE = (
    "the model returns a list with a dict of results for each image, as detectors do, and their number depends on what "
    "the image shows; prune the part that computes the features, `result = sc.prune(model.backbone, images)` with "
    "batches of stacked images, and put it back: `model.backbone = result.model`"
)


def has_results_by_image(output: Any) -> bool:
    """Return whether an output is a list with a dict of results for each image, as that of a detector."""
    return isinstance(output, (list, tuple)) and bool(output) and all(isinstance(entry, Mapping) for entry in output)


def takes_list_of_images(run: Run, batch: Batch) -> bool:
    """Return whether a network takes the images of a batch as a list, and is a detector."""
    images = [*batch.tensors, *([batch.target] if isinstance(batch.target, Tensor) else [])]
    if not images or any(image.dim() != IMAGE_DIMS for image in images):
        return False
    try:
        return has_results_by_image(run(replace(batch.without_target(), args=(images,), kwargs={})))
    except SecateurError:
        return False


def advice_on_inputs(run: Run, batch: Batch, examples: Batch, failure: Exception) -> str:
    """Return what is wrong with a batch that a network refuses, and what to give.

    Args:
        run: a function from a batch to the network's output.
        batch: the batch.
        examples: its first examples, if its first axis has the examples.
        failure: the network's error.

    Returns:
        The advice; empty where no change of the inputs leads to an output for each example.
    """
    unknown = unknown_names(run, examples, failure)
    if unknown:
        return (
            f"the model's `forward` has no {', '.join(unknown)}, and takes the other inputs; leave these out, and give "
            "labels as `labels`, or beside the inputs: ({...}, target)"
        )
    for entry in INPUT_CHANGES:
        refused = batch if entry.adds_examples else examples
        changed = entry.change(refused)
        if changed is not None and accepts(run, changed):
            before, after = input_shapes_text(refused), input_shapes_text(changed)
            shapes = f"inputs of {before} are refused, and {after} taken: " if before != after else ""
            return f"{shapes}{entry.fault}; {entry.remedy}"
    return RESULTS_BY_IMAGE if takes_list_of_images(run, batch) else ""


def unknown_names(run: Run, batch: Batch, failure: Exception) -> list[str]:
    """Return the named inputs without which the network takes the others; none where that doesn't help."""
    names: list[str] = []
    while name := re.search(r"unexpected keyword argument '(\w+)'", str(failure)):
        if name[1] not in batch.kwargs:
            return []
        names.append(name[1])
        batch = replace(batch, kwargs={key: value for key, value in batch.kwargs.items() if key != name[1]})
        try:
            run(batch)
        except SecateurError as next_failure:
            failure = next_failure
        else:
            return names
    return []


def accepts(run: Run, batch: Batch) -> bool:
    """Return whether a network takes a batch, and returns something for each example."""
    try:
        output = main_output(run(batch))
    except SecateurError:
        return False
    return output.shape[:1] == batch.tensors[0].shape[:1]


def is_unbatched(run: Run, batch: Batch, output: Any) -> bool:
    """Return whether a batch that can't be divided is one image or sequence: two of them give its output twice.

    `batch` is one of which the network refuses single entries, and `output` the network's output on it.
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


def input_shapes_text(batch: Batch) -> str:
    """Return the shapes of a batch's inputs, in words."""
    shapes = [str(tuple(tensor.shape)) for tensor in batch.tensors]
    return f"{'shape' if len(shapes) == 1 else 'shapes'} {', '.join(shapes)}"
