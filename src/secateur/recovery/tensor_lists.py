"""Arithmetic of lists of tensors, one for each layer of a problem."""

from collections.abc import Sequence

from torch import Tensor


def shifted(tensors: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> list[Tensor]:
    """Return the tensors after a step of a length along a direction."""
    return [tensor + length * step for tensor, step in zip(tensors, direction, strict=True)]


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the sum of the products of all entries."""
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


def conjugate_share(
    steps: Sequence[Tensor], slopes: Sequence[Tensor], old_steps: Sequence[Tensor], old_slopes: Sequence[Tensor]
) -> float:
    """Return the share of the last direction in the next one, by Polak and Ribiere."""
    turned = _dot(steps, slopes) - _dot(steps, old_slopes)
    return max(turned, 0.0) / max(_dot(old_steps, old_slopes), 1e-300)
