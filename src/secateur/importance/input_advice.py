"""Advice on inputs that a network refuses: changes of their form, each of which is tried on the network."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.evaluation.outputs import main_output
from secateur.importance.input_changes import IMAGE_DIMS, INPUT_CHANGES, with_inputs

Run = Callable[[Batch], Any]
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
    if takes_list_of_images(run, batch):  # a single box would pass for an output of a single example
        return RESULTS_BY_IMAGE
    for entry in INPUT_CHANGES:
        refused_batch = batch if entry.adds_examples else examples
        changed_batch = entry.change(refused_batch)
        if changed_batch is not None and accepts(run, changed_batch):
            before, after = input_shapes_text(refused_batch), input_shapes_text(changed_batch)
            shapes = f"inputs of {before} are refused, and {after} taken: " if before != after else ""
            return f"{shapes}{entry.fault}; {entry.remedy}"
    return ""


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
    single_output = main_output(output)
    return pair.shape == (2, *single_output.shape) and torch.allclose(
        pair, torch.stack([single_output, single_output]), atol=1e-4, rtol=1e-3
    )


def input_shapes_text(batch: Batch) -> str:
    """Return the shapes of a batch's inputs, in words."""
    shapes = [str(tuple(tensor.shape)) for tensor in batch.tensors]
    return f"{'shape' if len(shapes) == 1 else 'shapes'} {', '.join(shapes)}"
