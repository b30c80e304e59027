"""The rows of the matrix product that a layer computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowPositions:
    """The rows that a linear layer reads.

    Args:
        values: the rows (examples, positions, features).
    """

    values: Tensor

    @property
    def count(self) -> int:
        """The number of positions."""
        return self.values.shape[1]

    def rows(self, positions: Tensor, groups: int) -> Tensor:
        """Return some positions of every example. (examples * selected, groups, features)"""
        rows: Tensor = rows_at(self.values, positions).flatten(0, 1).unflatten(1, (groups, -1))
        return rows


@dataclass(frozen=True)
class WindowAxis:
    """The windows of a convolution along an axis.

    Args:
        size: the length of the image.
        kernel: the number of pixels of a window.
        stride: between windows.
        dilation: between the pixels of a window.
        padding: pixels before and behind the image, which are zero.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]

    @property
    def count(self) -> int:
        """The number of windows."""
        return (self.size + sum(self.padding) - (self.kernel - 1) * self.dilation - 1) // self.stride + 1

    def pixels(self, windows: Tensor) -> Tensor:
        """Return the pixels of some windows, which may lie outside of the image. (windows, kernel)"""
        offsets = torch.arange(self.kernel, device=windows.device) * self.dilation
        return windows[:, None] * self.stride + offsets - self.padding[0]


@dataclass(frozen=True)
class WindowPositions:
    """The windows that a convolution reads; the image is not padded.

    Args:
        images: the input (examples, channels, *size).
        axes: where windows lie along each axis of the image.
    """

    images: Tensor
    axes: Sequence[WindowAxis]

    @property
    def count(self) -> int:
        """The number of positions."""
        return math.prod(axis.count for axis in self.axes)

    def rows(self, positions: Tensor, groups: int) -> Tensor:
        """Return some positions of every example. (examples * selected, groups, features)"""
        (examples, channels, *size), (of_example, *strides) = self.images.shape, self.images.stride()
        extent = 1 + sum((length - 1) * stride for length, stride in zip((channels, *size), strides, strict=True))
        memory = self.images.as_strided((examples, extent), (of_example, 1))
        pixels, is_outside = self._pixels(positions, strides[1:])
        at = pixels[:, None] + torch.arange(channels, device=positions.device)[:, None] * strides[0]
        windows = memory.index_select(1, at.flatten()).unflatten(1, at.shape)  # (examples, selected, channels, kernel)
        if self._is_padded:
            selected, pixel = torch.nonzero(is_outside, as_tuple=True)
            windows[:, selected, :, pixel] = 0
        rows: Tensor = windows.view(examples * len(positions), groups, -1)
        return rows

    @property
    def _is_padded(self) -> bool:
        return any(axis.padding != (0, 0) for axis in self.axes)

    def _pixels(self, positions: Tensor, strides: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return where the pixels of some windows lie in memory, and whether outside of the image. (selected, kernel)

        Args:
            positions: the positions.
            strides: between pixels in memory, along each axis.
        """
        offsets = torch.zeros_like(positions)[:, None]
        is_outside = torch.zeros_like(offsets, dtype=torch.bool)
        windows = torch.unravel_index(positions, [axis.count for axis in self.axes])
        for axis, number, stride in zip(self.axes, windows, strides, strict=True):
            pixels = axis.pixels(number)[:, None]  # (selected, 1, kernel of the axis)
            is_beyond = (pixels < 0) | (pixels >= axis.size)
            offsets = (offsets[:, :, None] + pixels.clamp(0, axis.size - 1) * stride).flatten(1)
            is_outside = (is_outside[:, :, None] | is_beyond).flatten(1)
        return offsets, is_outside


LayerPositions = RowPositions | WindowPositions


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
