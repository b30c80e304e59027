"""The divergence of an output from the dense network's."""

import math
from collections.abc import Callable, Iterable, Sequence
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

MOST_ENTRIES = 1 << 22  # class scores that are compared at once
FEWEST_ROWS = 16


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
        return temperature**2 * per_example(_class_divergences(output, dense, temperature))
    return relative_errors(output, dense, scales)


def divergence_roots(divergences: Tensor) -> Tensor:
    """Return the roots of divergences, of which rounding may leave one slightly below zero, (examples,)."""
    return divergences.clamp_min(0).sqrt()


def typical_divergence(divergences: Tensor) -> float:
    """Return the square of the mean root of examples' divergences.

    It has less noise than their mean, most of which may be due to a few examples.

    Args:
        divergences: those of the examples, (examples,).

    Examples:
        >>> typical_divergence(torch.tensor([1.0, 1.0, 1.0, 9.0]))
        2.25
    """
    return float(divergence_roots(divergences).mean()) ** 2


def top_probabilities(output: Any, temperature: float) -> Tensor:
    """Return the probability of the top class of each row at a temperature, (examples, ...)."""
    are_probabilities = is_distribution(output)

    def top(rows: Tensor) -> Tensor:
        return _log_probabilities(rows, are_probabilities, temperature).amax(-1).exp()

    return _by_row_blocks(top, main_output(output))


def _class_divergences(output: Any, dense: Any, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence of each row of class scores, (examples, ...)."""
    are_probabilities = is_distribution(dense)

    def divergences(rows: Tensor, dense_rows: Tensor) -> Tensor:
        logs, dense_logs = (_log_probabilities(scores, are_probabilities, temperature) for scores in (rows, dense_rows))
        return (dense_logs.exp() * (dense_logs - logs)).sum(-1)

    return _by_row_blocks(divergences, main_output(output), main_output(dense))


def _by_row_blocks(compute: Callable[..., Tensor], *scores: Tensor) -> Tensor:
    """Compute one value for each row of class scores (examples, ..., classes), a block of rows at a time.

    Over a large vocabulary each step takes twice as much memory as the output, in double precision. Where gradients are
    needed, all of it is held anyway.
    """
    shape = scores[0].shape
    block = max(MOST_ENTRIES // max(shape[-1], 1), FEWEST_ROWS)
    is_one_block = math.prod(shape[:-1]) <= block or any(tensor.shape != shape for tensor in scores)
    if is_one_block or any(tensor.requires_grad for tensor in scores):
        return compute(*scores)
    blocks = zip(*(tensor.flatten(0, -2).split(block) for tensor in scores), strict=True)
    by_row: Tensor = torch.cat([compute(*rows) for rows in blocks]).unflatten(0, shape[:-1])
    return by_row


def _log_probabilities(scores: Tensor, are_probabilities: bool, temperature: float) -> Tensor:
    """Return the logarithms of class probabilities at a temperature, (examples, ..., classes).

    Args:
        scores: class scores, or probabilities.
        are_probabilities: whether they are probabilities.
        temperature: by which class scores are divided.
    """
    scores = to_widest(scores)
    if are_probabilities:
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


def output_scales(outputs: Iterable[Any], is_regression: bool = False) -> list[Tensor]:
    """Return the mean squares of the dense network's outputs over batches, which divergences are fractions of.

    Each batch by itself would have another measure: an example alone whose output is almost zero would outweigh all
    others. There are none for class scores, as which the first batch tells; only this one is computed then.

    Args:
        outputs: the outputs, batch by batch.
        is_regression: whether targets show that outputs are no class scores.
    """
    sums, counts = list[Tensor](), list[int]()
    for output in outputs:
        if not sums and not is_regression and is_logits(output) and not is_no_class_score(output):
            return []
        tensors = outputs_by_example(output)
        sums = sums or [to_widest(tensor).new_zeros(()) for tensor in tensors]
        counts = counts or [0] * len(tensors)
        sums = [total + to_widest(tensor).square().sum() for total, tensor in zip(sums, tensors, strict=True)]
        counts = [count + tensor.numel() for count, tensor in zip(counts, tensors, strict=True)]
    return [(total / max(count, 1)).clamp_min(1e-12) for total, count in zip(sums, counts, strict=True)]


def _mean_squares(dense: Any) -> list[Tensor]:
    return [to_widest(tensor).square().mean().clamp_min(1e-12) for tensor in outputs_by_example(dense)]
