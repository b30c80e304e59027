"""Operator norms of the single kernels of a convolution.

On a torus a kernel is diagonal in the Fourier basis. With stride s the image falls into s x s phases, each convolved
with a part of the kernel, so the norm is the largest, over the frequencies of the result, of the root of the sum of
|FFT(phase)|^2 (Schoonhoven et al. 2020). That sum is the Fourier series of the kernel's own correlation at lags that
the stride divides: (2k - 1)^2 / 2 numbers in place of a transform of the size of the image, so all kernels of a layer
are one matrix product.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

PORTION_SIZE = 1 << 24  # numbers that the spectra of a portion of kernels may take


def operator_norms(weight: Tensor, image: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Return the norm of each kernel as an operator on images that wrap around.

    Args:
        weight: (outputs, inputs, *kernel).
        image: the size of the images; where the stride does not divide it, the next size that it divides is used.
        stride: the stride along each axis.
        dilation: the dilation along each axis.

    Returns:
        The norms (outputs, inputs) in float64.

    Examples:
        >>> operator_norms(torch.ones(1, 1, 3, 3), (8, 8), (1, 1), (1, 1))
        tensor([[9.]], dtype=torch.float64)
    """
    kernels = weight.detach().double().cpu().flatten(0, 1)  # (kernels, *kernel)
    lags = _lags(kernels.shape[1:], stride, dilation)
    coarse = [math.ceil(size / step) for size, step in zip(image, stride, strict=True)]
    waves = _waves(lags, coarse, stride, dilation)  # (lags, frequencies)
    portion = max(1, PORTION_SIZE // max(waves.shape[1], 1))
    peaks = [(_correlations(some_kernels, lags) @ waves).amax(1) for some_kernels in kernels.split(portion)]
    return torch.cat(peaks).clamp_min(0).sqrt().view(weight.shape[:2])


def _lags(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the lags between two entries of a kernel that are whole strides, one of each pair of opposites."""
    all_lags = itertools.product(*(range(1 - size, size) for size in kernel))
    integer_lags = (
        lag for lag in all_lags
        if all(step * gap % length == 0 for step, gap, length in zip(lag, dilation, stride, strict=True))
    )  # fmt: skip
    return [lag for lag in integer_lags if lag >= tuple(0 for _ in lag)]


def _waves(
    lags: Sequence[tuple[int, ...]], coarse: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return the contribution of each lag at each frequency (lags, frequencies): a cosine, twice but for lag zero.

    The last axis needs half of its frequencies: a real kernel has the same at the opposite ones.
    """
    halves = [*coarse[:-1], coarse[-1] // 2 + 1]
    axes = [torch.arange(count, dtype=torch.float64) / size for count, size in zip(halves, coarse, strict=True)]
    frequencies = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (axes, frequencies)
    steps = torch.tensor([[i * d // s for i, d, s in zip(lag, dilation, stride, strict=True)] for lag in lags])
    waves = torch.cos(2 * math.pi * steps.double() @ frequencies)
    is_zero = torch.tensor([not any(lag) for lag in lags])
    return torch.where(is_zero[:, None], waves, 2 * waves)


def _correlations(kernels: Tensor, lags: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the correlation of each kernel with itself at each lag (kernels, lags)."""
    correlations = []
    for lag in lags:
        here: list[slice] = [slice(None)]
        there: list[slice] = [slice(None)]
        for step, size in zip(lag, kernels.shape[1:], strict=True):
            here.append(slice(max(step, 0), size + min(step, 0)))
            there.append(slice(max(-step, 0), size + min(-step, 0)))
        correlations.append((kernels[tuple(here)] * kernels[tuple(there)]).flatten(1).sum(1))
    return torch.stack(correlations, 1)
