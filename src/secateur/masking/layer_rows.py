"""The rows of the matrix product that a layer computes."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerPositions:
    """The rows of a matrix product, as a view.

    Args:
        view: windows (examples, channels, *positions, *kernel), or rows (examples, positions, features).
    """

    view: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of positions."""
        if self.view.dim() == 3:
            return tuple(self.view.shape[1:2])
        return tuple(self.view.shape[2 : 2 + (self.view.dim() - 2) // 2])

    @property
    def count(self) -> int:
        """The number of positions."""
        return math.prod(self.shape)

    def rows(self, chosen: Tensor, groups: int) -> Tensor:
        """Return some positions of every example. (examples * selected, groups, features)"""
        if self.view.dim() == 3:
            picked = self.view[:, chosen]
        else:
            at: Any = (slice(None), *torch.unravel_index(chosen, self.shape))
            picked = self.view.movedim(1, 1 + len(self.shape))[at].flatten(2)  # (examples, chosen, features)
        rows: Tensor = picked.flatten(0, 1).unflatten(1, (groups, -1))
        return rows


def _by_example(x: Tensor, examples: int) -> Tensor:
    """Order rows by examples, where the first axis holds several rows per example."""
    if examples == 1:
        return x.reshape(1, -1, x.shape[-1])
    if x.dim() == 2 and len(x) % examples == 0:
        rows: Tensor = x.unflatten(0, (examples, -1))
        return rows
    return x.flatten(1, -2) if x.dim() > 2 else x[:, None]


def by_axis(value: Any, rank: int) -> list[int]:
    """Expand an option of a convolution to one number per axis of its kernel."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def padding_pairs(padding: Any, spans: list[int]) -> list[tuple[int, int]]:
    """Return the number of entries that a convolution pads before and behind each axis.

    Args:
        padding: as torch's operators take it: numbers, or "same" or "valid".
        spans: how many entries of each axis the kernel spans, dilation included.
    """
    if padding == "same":
        return [((span - 1) // 2, span - 1 - (span - 1) // 2) for span in spans]
    sizes = [0] * len(spans) if padding == "valid" else by_axis(padding, len(spans))
    return [(size, size) for size in sizes]
