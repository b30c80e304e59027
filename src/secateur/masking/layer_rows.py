"""The rows of the matrix product that a layer computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

OUTSIDE = -(2**40)  # its sum with offsets in memory stays negative


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

    def rows(self, positions: Tensor, groups: int, has_ones: bool = False) -> Tensor:
        """Return some positions of every example, as `WindowPositions.rows`."""
        rows: Tensor = rows_at(self.values, positions).flatten(0, 1).unflatten(1, (groups, -1))
        return with_ones(rows) if has_ones else rows


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

    @property
    def is_padded(self) -> bool:
        """True if windows may reach beyond the image."""
        return self.padding != (0, 0)

    def offsets(self, windows: np.ndarray, stride: int) -> np.ndarray:
        """Return where the pixels of some windows lie in memory, `OUTSIDE` beyond the image. (windows, kernel)

        Args:
            windows: the numbers of the windows.
            stride: between pixels in memory.
        """
        pixels = windows[:, None] * self.stride + (np.arange(self.kernel) * self.dilation - self.padding[0])
        if not self.is_padded:
            return pixels * stride
        return np.where((pixels < 0) | (pixels >= self.size), OUTSIDE, pixels * stride)


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

    def rows(self, positions: Tensor, groups: int, has_ones: bool = False) -> Tensor:
        """Return some positions of every example. (examples * selected, groups, features)

        Args:
            positions: the positions.
            groups: of the convolution.
            has_ones: whether a last feature is 1, for a constant.
        """
        (examples, channels, *size), (of_example, *strides) = self.images.shape, self.images.stride()
        extent = 1 + sum((length - 1) * stride for length, stride in zip((channels, *size), strides, strict=True))
        memory = self.images.as_strided((examples, extent), (of_example, 1))
        offsets = torch.from_numpy(self._offsets(positions.cpu().numpy(), strides[1:])).to(memory.device)
        is_padded = any(axis.is_padded for axis in self.axes)
        pixels = offsets.clamp(min=0) if is_padded else offsets
        at = pixels[:, None] + torch.arange(channels, device=memory.device)[:, None] * strides[0]
        at = at.view(len(positions), groups, -1)  # (selected, groups, features)
        if has_ones:  # any place, in the same copy
            at = F.pad(at, (0, 1))
        rows: Tensor = memory.index_select(1, at.flatten()).unflatten(1, at.shape)
        if is_padded:
            features = rows[..., :-1] if has_ones else rows
            selected, pixel = torch.nonzero(offsets < 0, as_tuple=True)
            features.unflatten(3, (-1, offsets.shape[1]))[:, selected, :, :, pixel] = 0
        if has_ones:
            rows[..., -1] = 1
        return rows.flatten(0, 1)

    def _offsets(self, positions: np.ndarray, strides: Sequence[int]) -> np.ndarray:
        """Return where the pixels of some windows lie in memory, negative outside of the image. (selected, kernel)

        These are a dozen operations on a few numbers for each layer and microbatch, in which NumPy takes a fifth of
        torch's time.

        Args:
            positions: the positions.
            strides: between pixels in memory, along each axis.
        """
        offsets = np.zeros((len(positions), 1), dtype=np.int64)
        windows = np.unravel_index(positions, [axis.count for axis in self.axes])
        for axis, number, stride in zip(self.axes, windows, strides, strict=True):
            of_axis = axis.offsets(number, stride)
            offsets = (offsets[:, :, None] + of_axis[:, None]).reshape(len(positions), -1)
        return offsets


LayerPositions = RowPositions | WindowPositions


def with_ones(rows: Tensor) -> Tensor:
    """Append a feature that is 1. (..., features + 1)"""
    return torch.cat([rows, torch.ones_like(rows[..., :1])], -1)


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
