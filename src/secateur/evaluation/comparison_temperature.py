"""The temperature at which class scores are compared on few examples.

On examples from its training distribution a network's top class has a probability close to 1. The Kullback-Leibler
divergence of such outputs is then almost zero for most examples and large for the two or three whose top class changes,
so its mean over a few dozen examples depends on these alone. At a higher temperature, as for distillation (Hinton et
al. 2015), every example counts.
"""

from collections.abc import Iterable
from typing import Any

import torch

from secateur.evaluation.divergence import top_probabilities
from secateur.evaluation.outputs import is_logits, is_no_class_score

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
CERTAIN = 0.9  # the largest mean probability of the top class


def comparison_temperature(outputs: Iterable[Any]) -> float:
    """Return the lowest temperature at which the top classes have a mean probability of at most 0.9.

    Args:
        outputs: of the dense network, batch by batch; 1 is returned where they are no class scores.

    Examples:
        >>> unsure, certain = torch.tensor([[0.5, 0.0], [0.0, 1.0]]), torch.tensor([[9.0, 0.0], [0.0, 8.0]])
        >>> comparison_temperature([unsure]), comparison_temperature([certain]), comparison_temperature([1e3 * certain])
        (1.0, 4.0, 8.0)
    """
    totals = [0.0] * len(TEMPERATURES)
    count = 0
    for output in outputs:
        if not is_logits(output) or is_no_class_score(output):
            return TEMPERATURES[0]
        for number, temperature in enumerate(TEMPERATURES):
            top = top_probabilities(output, temperature)
            totals[number] += float(top.sum(dtype=torch.float64))
        count += top.numel()
    is_certain = [total > CERTAIN * count for total in totals]
    return next(
        (value for value, certain in zip(TEMPERATURES, is_certain, strict=True) if not certain), TEMPERATURES[-1]
    )
