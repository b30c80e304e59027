"""The divergence of an output from the dense network's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.evaluation.outputs import (
    is_distribution,
    is_logits,
    is_no_class_score,
    main_output,
    outputs_by_example,
    per_example,
)
from secateur.utils.dtypes import to_widest


def divergence(output: Any, dense: Any, scales: Sequence[Tensor] | None = None, temperature: float = 1.0) -> Tensor:
    """Return the divergence of each example's output from the dense network's, (examples,).

    For logits, (examples, classes) or anything named `logits`, the Kullback-Leibler divergence of their softmax from
    the dense one's, for probabilities that of the probabilities; for other outputs, among them activations from 0 to 1
    and vectors of length 1, the squared difference as a fraction of the dense output's mean square.

    Args:
        output: the output.
        dense: the dense network's output.
        scales: the mean squares of the dense network's outputs; by default those of this batch.
        temperature: by which class scores are divided; the divergence is multiplied by its square, so that it stays of
            the same order.
    """
    has_classes = not is_no_class_score(dense) if scales is None else not scales
    if is_logits(output) and has_classes:
        logs, dense_logs = (log_probabilities(one, dense, temperature) for one in (output, dense))
        return temperature**2 * per_example((dense_logs.exp() * (dense_logs - logs)).sum(-1))
    return relative_errors(output, dense, scales)


def log_probabilities(output: Any, dense: Any, temperature: float = 1.0) -> Tensor:
    """Return the logarithms of class probabilities at a temperature, (examples, ..., classes).

    Args:
        output: class scores, or probabilities if the dense network's output is.
        dense: the dense network's output.
        temperature: by which class scores are divided.
    """
    scores = to_widest(main_output(output))
    if is_distribution(dense):
        scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
        return scores if temperature == 1 else (scores / temperature).log_softmax(-1)
    return (scores if temperature == 1 else scores / temperature).log_softmax(-1)


def relative_errors(output: Any, dense: Any, scales: Sequence[Tensor] | None = None) -> Tensor:
    """Return each example's squared difference as a fraction of the dense output's mean square, (examples,).

    Args:
        output: the output.
        dense: the dense network's output.
        scales: the mean squares of the dense network's outputs; by default those of this batch.
    """
    pairs = list(zip(outputs_by_example(output), outputs_by_example(dense), strict=True))
    errors = [per_example((to_widest(a) - to_widest(b)).square()) for a, b in pairs]
    divisors = _mean_squares(dense) if scales is None else scales
    return torch.stack([error / divisor for error, divisor in zip(errors, divisors, strict=True)]).mean(0)


def output_scales(dense: Any) -> list[Tensor]:
    """Return the mean squares of the dense network's outputs, which divergences are fractions of; none for logits."""
    return [] if is_logits(dense) and not is_no_class_score(dense) else _mean_squares(dense)


def _mean_squares(dense: Any) -> list[Tensor]:
    return [to_widest(tensor).square().mean().clamp_min(1e-12) for tensor in outputs_by_example(dense)]
