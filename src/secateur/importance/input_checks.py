"""Inputs and outputs, checked on a few examples of each kind of batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError, SecateurError
from secateur.evaluation.outputs import main_output
from secateur.importance.input_advice import (
    RESULTS_BY_IMAGE,
    advice_on_inputs,
    has_results_by_image,
    input_shapes_text,
    is_unbatched,
)
from secateur.importance.input_changes import BATCH_AXIS

Run = Callable[[Batch], Any]
EXAMPLE_COUNT = 2
EXAMPLE = "the example"


def check_inputs(
    run: Run, batches: Sequence[Batch], source: str = "data", by_example: bool = True
) -> list[tuple[Batch, Any]]:
    """Run a network on a few examples of each kind of batch, by the shapes and types of their inputs.

    Args:
        run: a function from a batch to the network's output.
        batches: the examples.
        source: their name in messages: "data" or "test".
        by_example: whether the first axis of outputs must be the examples, as the default loss takes them.

    Returns:
        For each batch the examples of its kind that were run, and the network's output on them.

    Raises:
        DataError: the network refuses a batch, or its output can't be used or lacks an axis of examples; the message
            names the batch.
    """
    outputs: dict[str, tuple[Batch, Any]] = {}
    results = []
    for number, batch in enumerate(batches):
        kind, label = _kind(batch), source if source == EXAMPLE else f"batch {number} of {source}"
        if kind not in outputs:
            examples, output = _run_examples(run, batch, label, _advice_on_pair(batches, number))
            if _is_one_example(run, batch, examples, output):
                output = output if len(examples.tensors[0]) == len(batch.tensors[0]) else run(batch)
                examples = replace(batch, is_one_example=True)
            _check_output(output, examples, label, by_example and not examples.is_one_example)
            outputs[kind] = examples, output
        results.append(outputs[kind])
    return results


def _is_one_example(run: Run, batch: Batch, examples: Batch, output: Any) -> bool:
    """Return whether a batch is a graph or a set of points, for which the network has no result per entry.

    Images and sequences, with three axes or more, have an axis for examples, or lack it by mistake.

    Args:
        run: a function from a batch to the network's output.
        batch: the batch.
        examples: the first of its entries, or all.
        output: the network's output on these.
    """
    if examples.is_one_example:
        return True
    floats = [tensor for tensor in examples.tensors if tensor.is_floating_point()]
    if not floats or (floats[0].dim() != 2 and examples.is_divisible):
        return False
    shapes = _output_shapes(output)
    if all(examples.size not in shape for shape in shapes):
        return True
    is_part = examples.size == EXAMPLE_COUNT < (batch.size or 0)
    if not is_part or any(shape[:1] == (EXAMPLE_COUNT,) for shape in shapes):
        return False
    try:  # an axis of two classes is as long as one of two examples
        return _output_shapes(run(batch.take(torch.arange(EXAMPLE_COUNT + 1)))) == shapes
    except SecateurError:
        return False


def _output_shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _kind(batch: Batch) -> str:
    """Return the shapes and types that batches of one kind have in common."""
    size = batch.size

    def describe_leaf(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        shape = tuple(leaf.shape)
        return leaf.dtype, ("batch", *shape[1:]) if shape and shape[0] == size else shape

    return repr(pytree.tree_map(describe_leaf, (batch.args, dict(batch.kwargs))))


def _advice_on_pair(batches: Sequence[Batch], number: int) -> str:
    """Return what to give in place of inputs and targets that are read as two batches; empty for other batches."""
    is_pair = len(batches) == 2 and all(len(batch.tensors) == 1 and batch.target is None for batch in batches)
    if number != 1 or not is_pair or batches[0].size != batches[1].size:
        return ""
    return "a list holds batches; give inputs and targets of one batch as a tuple, (x, y)"


def _run_examples(run: Run, batch: Batch, label: str, further_advice: str = "") -> tuple[Batch, Any]:
    """Return the first examples of a batch and the output on them; all where the network takes no fewer.

    An error begins with `further_advice`, or else with what `advice_on_inputs` finds.

    Raises:
        DataError: the network refuses them.
    """
    splits = (batch.size or 0) > EXAMPLE_COUNT and batch.has_target_by_example and not batch.is_whole
    examples = batch.take(torch.arange(EXAMPLE_COUNT)) if splits else batch
    try:
        return examples, run(examples)
    except SecateurError:
        pass
    try:
        output = run(batch)
    except SecateurError as failure:
        advice = further_advice or advice_on_inputs(run, batch, examples, failure)
        raise DataError(f"{label}: {advice}\n{failure}" if advice else f"{label}: {failure}") from failure
    if splits and is_unbatched(run, batch, output):
        raise DataError(f"{label}: {BATCH_AXIS.fault} from inputs of {input_shapes_text(batch)}; {BATCH_AXIS.remedy}")
    return batch, output


def _check_output(output: Any, examples: Batch, label: str, by_example: bool) -> None:
    """Check an output.

    Raises:
        DataError: it holds no floating-point tensor, NaN, not one entry for each example, or lists of a detector.
    """
    scores = main_output(output)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in examples.tensors)
    if bool(scores.isnan().any()):
        raise DataError(f"{label}: the network's output of shape {tuple(scores.shape)} has NaN for inputs {shapes}")
    if by_example and has_results_by_image(output):
        raise DataError(f"{label}: {RESULTS_BY_IMAGE}")
    if by_example and examples.size is not None and scores.shape[:1] != (examples.size,):
        raise DataError(
            f"{label}: the network's output has shape {tuple(scores.shape)} for {examples.size} examples, inputs "
            f"{shapes}; the first axis of inputs and outputs is the batch, so give a single example as x.unsqueeze(0)"
        )
