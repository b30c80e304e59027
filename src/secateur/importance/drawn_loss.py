"""Random losses whose gradients have the curvature of the divergence as their second moment."""

from typing import Any

import torch
from torch import Tensor

from secateur.evaluation.divergence import output_scales
from secateur.evaluation.outputs import is_logits, main_output, outputs_by_example


def drawn_loss(output: Any, draws: torch.Generator, has_token_scores: bool = False) -> Tensor:
    """Return a random loss whose squared slope along any change of the output has the divergence's curvature as mean.

    For class scores it is the log likelihood of classes drawn from the network's distribution; for other outputs their
    product with noise.

    Args:
        output: the network's output.
        draws: a generator of the CPU.
        has_token_scores: whether it is a plain tensor of class scores of each token, see `Batch`.
    """
    if is_logits(output) or has_token_scores:
        scores = main_output(output).log_softmax(-1)
        classes = drawn_classes(scores.detach().exp(), draws)
        likelihoods = scores.gather(-1, classes[..., None])[..., 0]
        positions = likelihoods[0].numel()
        loss: Tensor = -likelihoods.sum() / positions**0.5
        return loss
    outputs = outputs_by_example(output)
    total = torch.zeros((), device=outputs[0].device)
    for tensor, scale in zip(outputs, output_scales(output), strict=True):
        entries = tensor[0].numel() * len(outputs)
        noise = torch.randn(tensor.shape, generator=draws).to(tensor)
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
