"""Norms of operators are those of their matrices."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.channel_graph.op_norms import operator_norms


def explicit(kernel: Tensor, image: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The matrix of a convolution on a torus, one column for each pixel."""
    columns = []
    for pixel in range(image[0] * image[1]):
        x = torch.zeros(image[0] * image[1], dtype=torch.float64)
        x[pixel] = 1
        result = torch.zeros(image[0] // stride[0], image[1] // stride[1], dtype=torch.float64)
        for i, j in itertools.product(range(kernel.shape[0]), range(kernel.shape[1])):
            moved = torch.roll(x.view(image), (-i * dilation[0], -j * dilation[1]), (0, 1))
            result += kernel[i, j] * moved[:: stride[0], :: stride[1]]
        columns.append(result.flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize(
    ("kernel", "image", "stride", "dilation"),
    [
        ((3, 3), (8, 8), (1, 1), (1, 1)),
        ((3, 3), (8, 6), (2, 2), (1, 1)),
        ((3, 3), (8, 8), (2, 1), (2, 3)),
        ((5, 3), (6, 6), (3, 2), (1, 2)),
        ((3, 3), (4, 4), (1, 1), (3, 3)),  # wraps around
        ((2, 2), (6, 6), (2, 2), (1, 1)),
        ((1, 1), (6, 6), (2, 2), (1, 1)),
        ((7, 7), (4, 4), (2, 2), (1, 1)),  # larger than the image
    ],
)
def test_norms_are_those_of_the_explicit_matrix(kernel: Any, image: Any, stride: Any, dilation: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, *kernel, generator=generator, dtype=torch.float64)
    norms = operator_norms(weight, image, stride, dilation)
    for o, i in itertools.product(range(2), range(3)):
        matrix = explicit(weight[o, i], image, stride, dilation)
        assert float(norms[o, i]) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)


def test_norms_against_power_iteration_on_the_convolution_itself() -> None:
    """With circular padding, and an upper bound without: zeros at the border only take away."""
    torch.manual_seed(0)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    norm = float(operator_norms(weight, (16, 16), (1, 1), (1, 1)))

    def power(padded: Any) -> float:
        x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
        for _ in range(2000):
            x = x / x.norm()
            x = torch.func.vjp(padded, x)[1](padded(x))[0]
        return math.sqrt(float(x.norm()))

    assert power(lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight)) == pytest.approx(norm, rel=1e-4)
    assert power(lambda x: F.conv2d(x, weight, padding=1)) <= norm * (1 + 1e-9)


def test_operator_norms_along_one_and_three_axes() -> None:
    assert float(operator_norms(torch.ones(1, 1, 5), (9,), (1,), (1,))) == pytest.approx(5)
    assert float(operator_norms(torch.ones(1, 1, 2, 2, 2), (4, 4, 4), (2, 2, 2), (1, 1, 1))) == pytest.approx(8**0.5)
