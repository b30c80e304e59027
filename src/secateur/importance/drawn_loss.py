"""Random losses whose gradients have the curvature of the divergence as their second moment."""

from typing import Any

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.evaluation.divergence import output_scales
from secateur.evaluation.outputs import is_logits, main_output, outputs_by_example, with_named_scores


class DrawnLosses:
    """Random losses whose squared slope along any change of the output has the divergence's curvature as mean.

    For class scores they are the log likelihoods of classes drawn from the network's distribution; for other outputs
    their products with noise, in the measure of the outputs of the first batch.

    Args:
        draws: a generator of the CPU.
    """

    def __init__(self, draws: torch.Generator) -> None:
        self.draws = draws
        self._scales: list[Tensor] | None = None  # of the first batch

    def of(self, output: Any, batch: Batch) -> Tensor:
        """Return a random loss, summed over examples.

        Args:
            output: the network's output.
            batch: the examples, each of which may have several rows.
        """
        output, examples = with_named_scores(output, batch.has_token_scores), batch.size or 1
        if is_logits(output):
            scores = main_output(output).log_softmax(-1)
            classes = drawn_classes(scores.detach().exp(), self.draws)
            likelihoods = scores.gather(-1, classes[..., None])[..., 0]
            loss: Tensor = -likelihoods.sum() / (likelihoods.numel() / examples) ** 0.5  # a mean over positions
            return loss
        outputs = outputs_by_example(output)
        if self._scales is None:
            self._scales = output_scales([output], is_regression=True)
        total = torch.zeros((), device=outputs[0].device)
        for tensor, scale in zip(outputs, self._scales, strict=True):
            entries = tensor.numel() / examples * len(outputs)
            noise = torch.randn(tensor.shape, generator=self.draws).to(tensor)
            total = total + (tensor * noise).sum() * (2 / (entries * float(scale.detach()))) ** 0.5
        return total


def drawn_classes(probabilities: Tensor, draws: torch.Generator) -> Tensor:
    """Draw one class at each position: the first up to which the probabilities exceed a uniform number.

    Unlike `torch.multinomial`, it draws one number per position, so that devices agree and a vocabulary costs little.

    Args:
        probabilities: the probabilities of the classes (..., classes).
        draws: a generator of the CPU.

    Returns:
        The numbers of the classes (...).
    """
    sums = probabilities.flatten(0, -2).to(torch.promote_types(probabilities.dtype, torch.float32)).cumsum(-1)
    numbers = torch.rand(len(sums), 1, generator=draws).to(sums)
    classes = torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp_max(probabilities.shape[-1] - 1)
    return classes.view(probabilities.shape[:-1])
