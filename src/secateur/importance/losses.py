"""One loss per example: against labels where there are any, else against the dense network's own output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from secateur.errors import DataError
from secateur.network.program import wide

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
        raise DataError(f"the network returns a {type(output).__name__} without a floating-point tensor; give loss=")
    return first


def supervised(output: Any, target: Tensor) -> Tensor:
    """Cross entropy against class numbers, squared error against anything else. (examples,)

    Raises:
        DataError: the labels do not fit the output.
    """
    scores = main_output(output)
    if target.is_floating_point():
        if target.shape != scores.shape:
            raise DataError(f"targets have shape {tuple(target.shape)} but the network's output {tuple(scores.shape)}")
        return (scores - target).square().flatten(1).mean(1) if scores.dim() > 1 else (scores - target).square()
    by_position = scores.dim() == 3 and target.shape == scores.shape[:2]  # language models: (batch, length, classes)
    if by_position and (is_logits(output) or target.shape != scores.shape[:1] + scores.shape[2:]):
        scores = scores.transpose(1, 2)
    _check_labels(scores, target)
    return _per_example(F.cross_entropy(scores.float(), target, reduction="none"))


def _check_labels(scores: Tensor, target: Tensor) -> None:
    if scores.dim() < 2 or target.shape != scores.shape[:1] + scores.shape[2:]:
        raise DataError(f"labels have shape {tuple(target.shape)} but the network's output {tuple(scores.shape)}")
    wrong = target[(target != -100) & ((target < 0) | (target >= scores.shape[1]))]
    if len(wrong):
        raise DataError(
            f"label {int(wrong[0])} is out of range: the network has {scores.shape[1]} classes, 0 to "
            f"{scores.shape[1] - 1}"
        )


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def divergence(output: Any, dense: Any, scales: Sequence[Tensor] | None = None) -> Tensor:
    """How far an output is from the dense network's. (examples,)

    For logits, (examples, classes) or anything named `logits`, the Kullback-Leibler divergence of their softmax from
    the dense one's; for other outputs the squared difference as a fraction of the dense output's mean square: of this
    batch, or as `scales` say.
    """
    if is_logits(output):
        log_found, log_expected = (wide(main_output(each)).log_softmax(-1) for each in (output, dense))
        return _per_example((log_expected.exp() * (log_expected - log_found)).sum(-1))
    pairs = list(zip(outputs_by_example(output), outputs_by_example(dense), strict=True))
    gaps = [_per_example((wide(a) - wide(b)).square()) for a, b in pairs]
    held = scales_of(dense) if scales is None else scales
    return torch.stack([gap / scale for gap, scale in zip(gaps, held, strict=True)]).mean(0)


def scales_of(dense: Any) -> list[Tensor]:
    """The mean squares of the dense network's outputs, which divergences of outputs that are no logits are parts of."""
    if is_logits(dense):
        return []
    return [wide(part).square().mean().clamp_min(1e-12) for part in outputs_by_example(dense)]


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
    if reference.labels is not None:
        return _checked((loss or supervised)(output, reference.labels), examples)
    if loss is not None:
        return _checked(loss(output, reference.dense), examples)
    return _checked(divergence(output, reference.dense, reference.scales), examples)


def _checked(values: Any, examples: int) -> Tensor:
    """A loss as one finite number per example.

    Raises:
        DataError: it is something else.
    """
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
