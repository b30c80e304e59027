"""Checks of targets for the default loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.data.forms import ExampleList
from secateur.data.next_tokens import IGNORED_LABEL
from secateur.errors import TargetError
from secateur.evaluation.outputs import is_logits, main_output
from secateur.options import kind_text

IGNORED = IGNORED_LABEL


def check_target(output: Any, target: Any, examples: int | None = None) -> tuple[Tensor, bool]:
    """Check targets for the default loss.

    Args:
        output: the network's output.
        target: the targets.
        examples: the number of examples; by default that of the output.

    Returns:
        The targets, and whether the class scores lie along the last of three axes, as those of language models.

    Raises:
        TargetError: they can't serve for cross entropy or the squared error.
    """
    shape = main_output(output).shape
    scores = shape if examples is None else torch.Size([examples, *shape[1:]])
    if not isinstance(target, Tensor):
        has_texts = isinstance(target, ExampleList) and all(isinstance(label, str) for label in target)
        kind = "texts" if has_texts else kind_text(list(target) if isinstance(target, ExampleList) else target)
        raise TargetError(
            f"targets are {kind}, where the default loss takes one tensor; give loss=, a function of the output and "
            "the target that gives one value per example"
        )
    if target.is_complex() or (target.is_floating_point() and target.shape != scores):
        advice = _advice_on_shape(target, scores) + _advice_on_type(target, scores)
        raise TargetError(
            f"targets have shape {tuple(target.shape)} and type {target.dtype} but the network's output "
            f"{tuple(scores)}{advice}; give targets like the output, class numbers, or loss="
        )
    if target.is_floating_point():
        return target, False
    if len(shape) == 1 and target.numel() == 1:  # the class scores of one example
        _check_labels(torch.Size([1, *shape]), target.reshape(1))
        return target, False
    by_position = len(scores) == 3 and target.shape == scores[:2]  # language models: (batch, length, classes)
    classes_last = by_position and (is_logits(output) or target.shape != scores[:1] + scores[2:])
    _check_labels(torch.Size([scores[0], scores[2], scores[1]]) if classes_last else scores, target)
    return target, classes_last


def has_real_targets(batch: Batch, dense: Any) -> bool:
    """Return whether the targets of a batch are numbers like the outputs, which are then no class scores."""
    is_real = isinstance(batch.target, Tensor) and batch.target.is_floating_point()
    return is_real and batch.target.shape == main_output(dense).shape


def _check_labels(scores: Sequence[int], target: Tensor) -> None:
    """Check class numbers.

    Args:
        scores: the shape of the class scores, the classes along the second axis.
        target: the class numbers.

    Raises:
        TargetError: they have another shape, or are out of range.
    """
    if len(scores) < 2 or target.shape != torch.Size([scores[0], *scores[2:]]):
        one_hot = "; one-hot labels as class numbers are target.argmax(1)" if target.shape == torch.Size(scores) else ""
        one_hot = one_hot or _advice_on_shape(target, [scores[0], *scores[2:]])
        raise TargetError(
            f"labels have shape {tuple(target.shape)} but the network's output {tuple(scores)}{one_hot}; give one "
            "class number per example (and position), or loss="
        )
    numbers = target.long()
    wrong = numbers[(numbers != IGNORED) & ((numbers < 0) | (numbers >= scores[1]))]
    if len(wrong):
        raise TargetError(
            f"label {int(wrong.flatten()[0])} is out of range: the network has {scores[1]} classes, 0 to "
            f"{scores[1] - 1}; {_advice_on(int(wrong.flatten()[0]), scores[1])}"
        )


def _advice_on_shape(target: Tensor, expected_shape: Sequence[int]) -> str:
    """Return how targets get a shape by an axis of length 1 more or less; empty where that is not enough."""
    shape, expected_shape = list(target.shape), list(expected_shape)
    for axis, length in enumerate(expected_shape):
        if length == 1 and shape == expected_shape[:axis] + expected_shape[axis + 1 :]:
            return f"; target.unsqueeze({axis}) has that shape"
    for axis, length in enumerate(shape):
        if length == 1 and expected_shape == shape[:axis] + shape[axis + 1 :]:
            return f"; target.squeeze({axis}) has one number per example"
    return ""


def _advice_on_type(target: Tensor, scores: Sequence[int]) -> str:
    """Return how class numbers that are no whole numbers become such; empty where the targets are none."""
    is_of_classes = len(scores) > 1 and scores[1] > 1 and list(target.shape) == [scores[0], *scores[2:]]
    is_whole = not target.is_complex() and bool((target == target.round()).all())
    return "; target.long() has class numbers" if is_of_classes and is_whole else ""


def _advice_on(label: int, classes: int) -> str:
    if classes == 1:
        return "for one output give loss=, such as binary cross entropy with one value per example"
    if label in (255, -1):
        return f"the label of what does not count is -100: target.masked_fill(target == {label}, -100); or give loss="
    return "correct the labels (-100 does not count), or give loss="
