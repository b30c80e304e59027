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

AT_ONCE = 1 << 24  # numbers that a portion of kernels may take


def operator_norms(weight: Tensor, image: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """The norm of each kernel as an operator on images that wrap around.

    Args:
        weight: (outputs, inputs, *kernel).
        image: the size of the images; where the stride does not divide it, the next size that it does is taken.
        stride: along each axis.
        dilation: along each axis.

    Returns:
        (outputs, inputs) in float64.

    Example:
        >>> operator_norms(torch.ones(1, 1, 3, 3), (8, 8), (1, 1), (1, 1))
        tensor([[9.]], dtype=torch.float64)
    """
    kernels = weight.detach().double().cpu().flatten(0, 1)  # (kernels, *kernel)
    lags = _lags(kernels.shape[1:], stride, dilation)
    coarse = [math.ceil(size / step) for size, step in zip(image, stride, strict=True)]
    waves = _waves(lags, coarse, stride, dilation)  # (lags, frequencies)
    portion = max(1, AT_ONCE // max(waves.shape[1], 1))
    found = [(_correlations(part, lags) @ waves).amax(1) for part in kernels.split(portion)]
    return torch.cat(found).clamp_min(0).sqrt().view(weight.shape[:2])


def _lags(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, ...]]:
    """Lags between two entries of a kernel, one of each pair of opposites, that are whole strides."""
    every = itertools.product(*(range(1 - size, size) for size in kernel))
    whole = (
        lag for lag in every
        if all(step * wide % over == 0 for step, wide, over in zip(lag, dilation, stride, strict=True))
    )  # fmt: skip
    return [lag for lag in whole if lag >= tuple(0 for _ in lag)]


def _waves(
    lags: Sequence[tuple[int, ...]], coarse: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """What each lag adds at each frequency: a cosine, twice but for lag zero. (lags, frequencies)

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
    """Each kernel's correlation with itself at each lag. (kernels, lags)"""
    found = []
    for lag in lags:
        here: list[slice] = [slice(None)]
        there: list[slice] = [slice(None)]
        for step, size in zip(lag, kernels.shape[1:], strict=True):
            here.append(slice(max(step, 0), size + min(step, 0)))
            there.append(slice(max(-step, 0), size + min(-step, 0)))
        found.append((kernels[tuple(here)] * kernels[tuple(there)]).flatten(1).sum(1))
    return torch.stack(found, 1)
