"""The loss of a training towards the dense network's outputs (Hinton et al. 2015), and its batches of examples."""

from collections import Counter
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


class BatchSampler:
    """Sample batches of examples whose inputs have one shape, in proportion to the sizes of microbatches.

    Args:
        microbatches: the examples.

    Examples:
        >>> from secateur.data.conversion import as_batches
        >>> sampler = BatchSampler(as_batches(torch.randn(8, 4)))
        >>> sampler.sample(16, torch.Generator()).size
        16
    """

    def __init__(self, microbatches: Sequence[Batch]) -> None:
        self._microbatches = microbatches
        self._sizes = [microbatch.size or 1 for microbatch in microbatches]
        self._forms = [_input_forms(microbatch) for microbatch in microbatches]

    def sample(self, size: int, draws: torch.Generator) -> Batch:
        """Sample a batch of `size` examples; a microbatch that can't be divided is a batch of its own."""
        first = self._draw_microbatches(range(len(self._microbatches)), 1, draws)[0]
        if not self._microbatches[first].is_divisible:
            return self._microbatches[first]
        same_shape = [number for number, form in enumerate(self._forms) if form == self._forms[first]]
        counts = Counter(self._draw_microbatches(same_shape, size, draws))
        samples = []
        for number, count in sorted(counts.items()):
            index = torch.randint(0, self._sizes[number], (count,), generator=draws)
            samples.append(self._microbatches[number].take(index))
        return concat_batches(samples)

    def _draw_microbatches(self, numbers: Sequence[int], count: int, draws: torch.Generator) -> list[int]:
        """Draw microbatches by number, with replacement, in proportion to their sizes."""
        sizes = torch.tensor([float(self._sizes[number]) for number in numbers])
        return [numbers[index] for index in torch.multinomial(sizes, count, True, generator=draws).tolist()]


def _input_forms(microbatch: Batch) -> list[Any]:
    return [(tensor.shape[1:], tensor.dtype) for tensor in microbatch.tensors]
