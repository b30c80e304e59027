"""What each example says of a cut network: loss, accuracy, agreement and divergence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.evaluation.losses import Loss, Reference, by_example, divergence, example_losses, main_output
from secateur.graph.contexts import preserved, run_seeded


def with_verdict(small: nn.Module, dense: nn.Module, batches: Sequence[Batch], loss: Loss | None) -> tuple[Tensor, ...]:
    """Each example's loss, whether its top class is right, and whether it is the dense network's. (examples,) each

    NaN where there is no such thing.
    """
    with preserved(dense), preserved(small):
        found = torch.cat([example_measures(dense, small, batch, loss)[1] for batch in batches], 1)
    return found[0], found[1], found[2]


def optional_means(row: list[float]) -> tuple[float, float | None, float | None, float]:
    loss, accuracy, agreement, distance = row
    return loss, None if np.isnan(accuracy) else accuracy, None if np.isnan(agreement) else agreement, distance


def example_measures(dense: nn.Module, small: nn.Module, batch: Batch, loss: Loss | None) -> Tensor:
    """(networks, [loss, accuracy, agreement, divergence], examples), NaN where there is no such thing."""
    expected = run_seeded(dense, batch)
    outputs = (expected, run_seeded(small, batch))
    examples = batch.size or 1
    rows = []
    for output in outputs:
        losses = example_losses(loss, output, Reference(batch.target, expected), examples)
        accuracy = _hits(output, batch.target, examples)
        agreement = _hits(output, _top(expected), examples)
        distance = by_example(divergence(output, expected), examples)
        rows.append(torch.stack([losses.double().cpu(), accuracy, agreement, distance.double().cpu()]))
    return torch.stack(rows)


def _top(output: Any) -> Tensor | None:
    scores = main_output(output)
    is_classes = scores.dim() == 2 or (not isinstance(output, Tensor) and hasattr(output, "logits"))
    return scores.argmax(-1) if is_classes else None


def _hits(output: Any, target: Any, examples: int) -> Tensor:
    """1 where the top class is the target, 0 elsewhere; NaN where outputs or targets are no classes."""
    nothing = torch.full((examples,), float("nan"), dtype=torch.float64)
    top = _top(output)
    if top is None or not isinstance(target, Tensor) or target.is_floating_point() or target.shape != top.shape:
        return nothing
    return (top == target.to(top.device)).double().view(examples, -1).mean(1).cpu()
