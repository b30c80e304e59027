"""The loss of a training towards the dense network's outputs (Hinton et al. 2015), and its batches of examples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.data.batch import Batch, concat_batches
from secateur.evaluation.divergence import divergence
from secateur.evaluation.losses import supervised_losses
from secateur.evaluation.outputs import is_distribution, is_logits, is_no_class_score, main_output
from secateur.options.call_checks import checked_calls

LABELS = 0.1


@checked_calls
def distillation(output: Any, dense: Any, temperature: float = 2.0) -> Tensor:
    """Compute the distillation loss of each example. (examples,)

    For class scores the Kullback-Leibler divergence of softened distributions, times the square of the temperature
    (Hinton et al. 2015, section 2); for other outputs the divergence as it is measured.
    """
    if not is_logits(output) or is_no_class_score(dense) or is_distribution(dense):
        return divergence(output, dense)
    log_probabilities, dense_log_probabilities = (
        (main_output(outputs) / temperature).log_softmax(-1) for outputs in (output, dense)
    )
    losses = (
        F.kl_div(log_probabilities, dense_log_probabilities, log_target=True, reduction="none").sum(-1) * temperature**2
    )
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def distillation_objective(output: Any, dense: Any, target: Any, temperature: float = 2.0) -> Tensor:
    """Compute the training loss: the distance from the dense outputs, and a tenth of the labels' loss."""
    loss = distillation(output, dense, temperature).mean()
    if not isinstance(target, Tensor):
        return loss
    return (1 - LABELS) * loss + LABELS * supervised_losses(output, target).mean()


def sample_batch(microbatches: Sequence[Batch], size: int, draws: torch.Generator) -> Batch:
    """Sample examples from microbatches whose inputs have one shape, in proportion to their sizes."""
    sizes = torch.tensor([float(microbatch.size or 1) for microbatch in microbatches])
    first = microbatches[int(torch.multinomial(sizes, 1, generator=draws))]
    same_shape = [microbatch for microbatch in microbatches if _input_forms(microbatch) == _input_forms(first)]
    if not first.is_divisible:
        return first
    owner = torch.multinomial(
        torch.tensor([float(microbatch.size or 1) for microbatch in same_shape]), size, True, generator=draws
    )
    samples = []
    for number in owner.unique().tolist():
        count = int((owner == number).sum())
        samples.append(
            same_shape[number].take(torch.randint(0, same_shape[number].size or 1, (count,), generator=draws))
        )
    return concat_batches(samples)


def _input_forms(microbatch: Batch) -> list[Any]:
    return [(tensor.shape[1:], tensor.dtype) for tensor in microbatch.tensors]
