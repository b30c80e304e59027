"""The rows of the matrix product that a layer computes."""

import itertools
import math
from collections.abc import Sequence
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
            picked = rows_at(self.view, chosen).flatten(0, 1)
        elif self._has_channels_last:
            picked = self._windows_by_channels(chosen)
        else:
            at: Any = (slice(None), *torch.unravel_index(chosen, self.shape))
            picked = self.view.movedim(1, 1 + len(self.shape))[at].flatten(2).flatten(0, 1)
        rows: Tensor = picked.unflatten(1, (groups, -1))
        return rows

    @property
    def _has_channels_last(self) -> bool:
        """True if the channels of a window's pixel lie together in memory, and pixels behind one another."""
        channels, strides = self.view.shape[1], self.view.stride()
        return channels > 1 and strides[1] == 1 and all(stride % channels == 0 for stride in (strides[0], *strides[2:]))

    def _windows_by_channels(self, chosen: Tensor) -> Tensor:
        """Return windows at some positions, (examples * selected, features), from whole pixels: in less time."""
        (examples, channels, *shape), strides = self.view.shape, self.view.stride()
        steps, rank = [stride // channels for stride in strides[2:]], len(self.shape)  # in pixels
        axes = [[at * step for at in range(length)] for length, step in zip(shape[rank:], steps[rank:], strict=True)]
        of_window = torch.tensor([sum(offsets) for offsets in itertools.product(*axes)], device=chosen.device)
        pixels = 1 + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
        images = self.view.as_strided((examples, pixels, channels), (strides[0], channels, 1))
        at = (_pixel_numbers(chosen, shape[:rank], steps[:rank])[:, None] + of_window).flatten()
        windows = images.index_select(1, at).view(-1, len(of_window) * channels)  # (..., kernel * channels)
        if len(of_window) == 1:
            return windows
        order = torch.arange(windows.shape[1], device=chosen.device).view(-1, channels).t().flatten()
        return windows.index_select(1, order)


def _pixel_numbers(positions: Tensor, shape: Sequence[int], steps: Sequence[int]) -> Tensor:
    """Return the numbers of the pixels at some positions of a grid, (positions,), by the steps along its axes."""
    numbers = torch.zeros_like(positions)
    for length, step in reversed(list(zip(shape, steps, strict=True))):
        numbers, positions = numbers + positions % length * step, positions // length
    return numbers


def rows_at(rows: Tensor, positions: Tensor) -> Tensor:
    """Select positions of every example, (examples, selected, features) of (examples, positions, features).

    Whole rows are copied where their features lie together in memory.
    """
    return rows.index_select(1, positions) if rows.stride(-1) == 1 else rows[:, positions]


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
