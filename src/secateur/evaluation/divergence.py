"""The divergence of an output from the dense network's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.evaluation.outputs import is_logits, main_output, outputs_by_example, per_example
from secateur.utils.dtypes import to_widest


def divergence(output: Any, dense: Any, scales: Sequence[Tensor] | None = None) -> Tensor:
    """Return the divergence of each example's output from the dense network's, (examples,).

    For logits, (examples, classes) or anything named `logits`, the Kullback-Leibler divergence of their softmax from
    the dense one's; for other outputs the squared difference as a fraction of the dense output's mean square.

    Args:
        output: the output.
        dense: the dense network's output.
        scales: the mean squares of the dense network's outputs; by default those of this batch.
    """
    if is_logits(output):
        logs, dense_logs = (to_widest(main_output(one)).log_softmax(-1) for one in (output, dense))
        return per_example((dense_logs.exp() * (dense_logs - logs)).sum(-1))
    pairs = list(zip(outputs_by_example(output), outputs_by_example(dense), strict=True))
    errors = [per_example((to_widest(a) - to_widest(b)).square()) for a, b in pairs]
    divisors = output_scales(dense) if scales is None else scales
    return torch.stack([error / divisor for error, divisor in zip(errors, divisors, strict=True)]).mean(0)


def output_scales(dense: Any) -> list[Tensor]:
    """Return the mean squares of the dense network's outputs, which divergences are fractions of; none for logits."""
    if is_logits(dense):
        return []
    return [to_widest(tensor).square().mean().clamp_min(1e-12) for tensor in outputs_by_example(dense)]
