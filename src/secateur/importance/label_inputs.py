"""Language models that score every token only where they are given targets, and else the last one alone."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.evaluation.outputs import main_output

EXAMPLES = 2


def with_labels_as_inputs(model: nn.Module, batches: Sequence[Batch], run: Callable[[Batch], Any]) -> list[Batch]:
    """Return batches with words as the model's second input, where it scores all tokens only with it.

    Code for training often computes the scores of the last token alone unless it gets `targets`. The model's own loss
    is not read, so that the tokens serve where there are no labels, and where a label does not count.

    Args:
        model: the model.
        batches: the batches.
        run: a function from a batch to the model's output.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    has_second = len(parameters) > 1 and parameters[1].kind == parameters[1].POSITIONAL_OR_KEYWORD
    if not batches or not has_second or not all(map(_is_of_tokens, batches)):
        return list(batches)
    examples = batches[0].take(torch.arange(min(EXAMPLES, batches[0].size or 1)))
    positions = [_scored_positions(run, batch) for batch in (examples, _with_second_input(examples))]
    return list(map(_with_second_input, batches)) if positions == [1, examples.args[0].shape[1]] else list(batches)


def _is_of_tokens(batch: Batch) -> bool:
    """Return whether a batch is one tensor of tokens (rows, length), with a class number for each or no targets."""
    target, inputs = batch.target, batch.tensors
    if not len(batch.args) == len(inputs) == 1 or batch.kwargs:
        return False
    if inputs[0].is_floating_point() or inputs[0].dim() != 2 or inputs[0].shape[1] < 2:
        return False
    is_of_classes = isinstance(target, Tensor) and not target.is_floating_point() and target.shape == inputs[0].shape
    return target is None or is_of_classes


def _with_second_input(batch: Batch) -> Batch:
    tokens, target = batch.args[0], batch.target
    return replace(batch, args=(tokens, tokens if target is None else target.where(target >= 0, tokens)))


def _scored_positions(run: Callable[[Batch], Any], batch: Batch) -> int:
    """Return the number of positions of scores (rows, positions, classes); 0 for other outputs, and errors."""
    try:
        scores = main_output(run(batch))
    except (SecateurError, RuntimeError, ValueError, IndexError, TypeError):
        return 0
    return scores.shape[1] if scores.dim() == 3 else 0
