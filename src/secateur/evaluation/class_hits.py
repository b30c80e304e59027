"""Hits of class scores: the top classes of outputs, and the fraction of an example's labels that they match."""

from typing import Any

import torch
from torch import Tensor

from secateur.evaluation.outputs import is_logits, main_output
from secateur.evaluation.targets import IGNORED


def top_classes(output: Any) -> Tensor | None:
    """Return the top classes: along the last axis of logits, else along the second; None without such an axis."""
    scores = main_output(output)
    return scores.argmax(-1 if is_logits(output) else 1) if scores.dim() > 1 else None


def class_hits(output: Any, labels: Any, examples: int) -> Tensor:
    """Return the fraction of top classes in each example that are the labels', (examples,).

    Labels of -100 do not count. NaN where outputs or labels are not classes, or no label counts.

    Args:
        output: the network's output.
        labels: class numbers, or anything else.
        examples: the number of examples.
    """
    classes = top_classes(output)
    if classes is None or not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != classes.shape:
        return torch.full((examples,), float("nan"), dtype=torch.float64)
    labels = labels.to(classes.device)
    is_counted = labels != IGNORED
    hits = ((classes == labels) & is_counted).double().view(examples, -1).sum(1)
    fractions: Tensor = hits / is_counted.double().view(examples, -1).sum(1)
    return fractions.cpu()
