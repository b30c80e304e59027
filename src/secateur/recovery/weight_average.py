"""The moving average of a network's weights over the steps of a training (Polyak and Juditsky 1992).

At a constant learning rate the weights move around a good place; their average is nearer to it than the last of them.
So it can be judged at any step, where the weights themselves would have to wait for the end of a schedule.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

DECAY = 0.98  # of the average at each step: it spans about 50 steps


class WeightAverage:
    """An exponential moving average of tensors.

    Args:
        tensors: the weights, which a training changes in place.

    Examples:
        >>> weight = torch.zeros(1)
        >>> average = WeightAverage([weight])
        >>> average.update()
        >>> weight.fill_(1.0)
        tensor([1.])
        >>> average.update()
        >>> with average.swapped_in():
        ...     print(weight)
        tensor([0.5000])
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self._means = [tensor.clone() for tensor in self._tensors]
        self._updates = 0

    @property
    def values(self) -> list[Tensor]:
        """The averages; the weights at the start where there was no update."""
        return self._means

    def update(self) -> None:
        """Add the present weights; the first ones count as much as those that follow."""
        self._updates += 1
        share = max(1 - DECAY, 1 / self._updates)
        for mean, tensor in zip(self._means, self._tensors, strict=True):
            mean.lerp_(tensor, share)

    def restart(self) -> None:
        """Forget all weights so far."""
        self._updates = 0

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the averages to the weights, and these back on leaving."""
        current = [tensor.clone() for tensor in self._tensors]
        self._copy(self._means)
        try:
            yield
        finally:
            self._copy(current)

    def _copy(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._tensors, values, strict=True):
                tensor.copy_(value)
