"""One loss per example: against labels where there are any, else against the dense network's own output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from secateur.data.forms import ExampleList
from secateur.errors import DataError, SecateurError, TargetError
from secateur.options import described
from secateur.utils.dtypes import to_widest

Loss = Callable[[Any, Any], Tensor]


def main_output(output: Any) -> Tensor:
    """The tensor that a network's output is about: itself, its `logits`, or its first floating-point tensor.

    Raises:
        DataError: there is none.
    """
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    floats = (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    first = next((leaf for leaf in floats if leaf.dim()), None)
    if first is None:
        if output is None:
            raise DataError("the network returns None; let its forward return what it computes")
        raise DataError(f"the network returns {described(output)} in which there is no floating-point tensor with axes")
    return first


def supervised(output: Any, target: Any) -> Tensor:
    """Cross entropy against class numbers, squared error against floating-point targets, (examples,).

    Raises:
        TargetError: the targets do not fit the output.
    """
    scores = main_output(output)
    labels, classes_last = check_target(output, target)
    if scores.dim() == 1 and not labels.is_floating_point():  # the class scores of one example
        scores, labels = scores[None], labels.reshape(1)
    if labels.is_floating_point():
        return (scores - labels).square().flatten(1).mean(1) if scores.dim() > 1 else (scores - labels).square()
    scores = scores.transpose(1, 2) if classes_last else scores
    return _per_example(F.cross_entropy(scores.float(), labels.long(), reduction="none"))


def check_target(output: Any, target: Any, examples: int | None = None) -> tuple[Tensor, bool]:
    """Check targets for the default loss.

    Args:
        output: the network's output.
        target: the targets.
        examples: how many there are; by default as many as the output has.

    Returns:
        The targets, and whether the class scores lie along the last of three axes, as those of language models.

    Raises:
        TargetError: they can't serve for cross entropy or the squared error.
    """
    shape = main_output(output).shape
    scores = shape if examples is None else torch.Size([examples, *shape[1:]])
    if not isinstance(target, Tensor):
        kind = described(list(target) if isinstance(target, ExampleList) else target)
        raise TargetError(
            f"targets are {kind}, where the default loss takes one tensor; give loss=, a function of the output and "
            "the target that gives one value per example"
        )
    if target.is_complex() or (target.is_floating_point() and target.shape != scores):
        raise TargetError(
            f"targets have shape {tuple(target.shape)} and type {target.dtype} but the network's output "
            f"{tuple(scores)}; give targets like the output, class numbers, or loss="
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


def _check_labels(scores: Sequence[int], target: Tensor) -> None:
    """
    Raises:
        TargetError: class numbers of another shape, or out of range.
    """
    if len(scores) < 2 or target.shape != torch.Size([scores[0], *scores[2:]]):
        one_hot = "; one-hot labels as class numbers are target.argmax(1)" if target.shape == torch.Size(scores) else ""
        raise TargetError(
            f"labels have shape {tuple(target.shape)} but the network's output {tuple(scores)}{one_hot}; give one "
            "class number per example (and position), or loss="
        )
    numbers = target.long()
    wrong = numbers[(numbers != -100) & ((numbers < 0) | (numbers >= scores[1]))]
    if len(wrong):
        raise TargetError(
            f"label {int(wrong.flatten()[0])} is out of range: the network has {scores[1]} classes, 0 to "
            f"{scores[1] - 1}; {_advice_on(int(wrong.flatten()[0]), scores[1])}"
        )


def _advice_on(label: int, classes: int) -> str:
    if classes == 1:
        return "for one output give loss=, such as binary cross entropy with one value per example"
    if label in (255, -1):
        return f"what is to be left out has the label -100: target.masked_fill(target == {label}, -100); or give loss="
    return "mend the labels (-100 is left out), or give loss="


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def divergence(output: Any, dense: Any, scales: Sequence[Tensor] | None = None) -> Tensor:
    """How far an output is from the dense network's, (examples,).

    For logits, (examples, classes) or anything named `logits`, the Kullback-Leibler divergence of their softmax from
    the dense one's; for other outputs the squared difference as a fraction of the dense output's mean square: of this
    batch, or as `scales` say.
    """
    if is_logits(output):
        log_found, log_expected = (to_widest(main_output(each)).log_softmax(-1) for each in (output, dense))
        return _per_example((log_expected.exp() * (log_expected - log_found)).sum(-1))
    pairs = list(zip(outputs_by_example(output), outputs_by_example(dense), strict=True))
    gaps = [_per_example((to_widest(a) - to_widest(b)).square()) for a, b in pairs]
    held = output_scales(dense) if scales is None else scales
    return torch.stack([gap / scale for gap, scale in zip(gaps, held, strict=True)]).mean(0)


def output_scales(dense: Any) -> list[Tensor]:
    """The mean squares of the dense network's outputs, which divergences of outputs that are no logits are parts of."""
    if is_logits(dense):
        return []
    return [to_widest(part).square().mean().clamp_min(1e-12) for part in outputs_by_example(dense)]


def outputs_by_example(output: Any) -> list[Tensor]:
    """The tensors of an output whose first axis is the examples."""
    examples = main_output(output).shape[:1]
    return [part for part in _floats(output) if part.shape[:1] == examples]


def is_logits(output: Any) -> bool:
    """Whether an output is class scores: (examples, classes) with two classes or more, or anything named `logits`."""
    if isinstance(output, Tensor):
        return output.dim() == 2 and output.shape[1] > 1
    return "logits" in output if isinstance(output, Mapping) else hasattr(output, "logits")


def _floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@dataclass(frozen=True)
class Reference:
    """What losses are measured against: labels, or else the dense network's own output.

    Args:
        labels: the labels, or None.
        dense: the dense network's output.
        scales: its mean squares over the cell that the examples come from.
    """

    labels: Any
    dense: Any
    scales: Sequence[Tensor] | None = None


def example_losses(loss: Loss | None, output: Any, reference: Reference, examples: int) -> Tensor:
    """One finite loss per example.

    Args:
        loss: the user's own; None for cross entropy or squared error with labels, and the divergence without.

    Raises:
        DataError: the labels don't fit, or the loss gives something else.
    """
    if loss is not None:
        against = reference.dense if reference.labels is None else reference.labels
        return _checked(_called(loss, output, against), examples)
    if reference.labels is not None:
        return _checked(supervised(output, reference.labels), examples)
    return _checked(divergence(output, reference.dense, reference.scales), examples)


def by_example(values: Tensor, examples: int) -> Tensor:
    """Losses as one per example; the mean of them all where there is one example, such as a graph with many nodes."""
    return values.mean().reshape(1) if examples == 1 and values.numel() and values.is_floating_point() else values


def _called(loss: Loss, output: Any, against: Any) -> Any:
    """A loss of the user's own.

    Raises:
        DataError: it fails; its own error is shown.
    """
    try:
        return loss(output, against)
    except SecateurError:
        raise
    except Exception as failure:
        raise DataError(
            f"loss= fails for {described(output)} as the output and {described(against)} as the target: "
            f"{type(failure).__name__}: {failure}"
        ) from failure


def _checked(values: Any, examples: int) -> Tensor:
    """A loss as one finite number per example.

    Raises:
        DataError: it is something else.
    """
    values = by_example(values, examples) if isinstance(values, Tensor) else values
    if not isinstance(values, Tensor) or values.shape != (examples,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise DataError(
            f"the loss gave {got} where one value per example, ({examples},), is needed; use reduction='none'"
        )
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise DataError(
            f"the loss is NaN or infinite for {bad} of {examples} examples; mend the loss or leave them out"
        )
    return values
