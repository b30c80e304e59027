"""Arithmetic of lists of tensors, one for each layer of a problem."""

from collections.abc import Iterator, Sequence

from torch import Tensor


def step_along(tensors: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> Iterator[Tensor]:
    """Yield the tensors after a step of a length along a direction."""
    for tensor, step in zip(tensors, direction, strict=True):
        yield tensor + length * step


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the sum of the products of all entries."""
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


class ConjugateDirection:
    """The direction of conjugate gradients, by Polak and Ribiere, with one copy of it and of the slopes.

    Args:
        zeros: zeros in the shapes of the tensors.

    Attributes:
        steps: the direction.
    """

    def __init__(self, zeros: Sequence[Tensor]) -> None:
        self.steps, self._slopes, self._product = list(zeros), zeros, 0.0

    def turn(self, steps: Sequence[Tensor], slopes: Sequence[Tensor], starts_anew: bool) -> None:
        """Turn to the next direction.

        Args:
            steps: preconditioned steps.
            slopes: the slopes that these were made of.
            starts_anew: whether the last direction is left out.
        """
        product = _dot(steps, slopes)
        turned = max(product - _dot(steps, self._slopes), 0.0)
        share = 0.0 if starts_anew else turned / max(self._product, 1e-300)
        self._slopes, self._product = slopes, product
        for number, step in enumerate(steps):
            self.steps[number] = step + share * self.steps[number]
