"""Packed blocks multiplied by loops that numba compiles for this processor; it is imported here and nowhere else."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
FEW = 16  # examples: below, vectors lie along the outputs; from there on along the examples


def multiply_blocks(x: Array, weight: Array, read: Array, bias: Array, wide: int) -> Array:
    """Multiply inputs by packed blocks.

    Args:
        x: (batch, inputs) float32, in order, without gaps.
        weight: (block rows, most * wide, high) float32.
        read: which block columns, those of one block row side by side (block rows * most).
        bias: (block rows, 1, high) float32.
        wide: columns of a block, a multiple of 8: the products of 8 inputs are added up before the sum is touched.

    Returns:
        (batch, block rows * high)
    """
    loop = _along_outputs if len(x) < FEW else _along_examples
    outputs: Array = loop(x, weight, read, bias, wide)
    return outputs


def _loop_along_outputs(x: Array, weight: Array, read: Array, bias: Array, wide: int) -> Array:
    down, deep, high = weight.shape
    most = deep // wide
    result = np.empty((len(x), down * high), x.dtype)
    for example in range(len(x)):
        inputs = x[example]
        for row in range(down):
            outputs = result[example, row * high : (row + 1) * high]
            outputs[:] = bias[row, 0]
            for block in range(most):
                for inside in range(0, wide, 8):
                    at, k = read[row * most + block] * wide + inside, block * wide + inside
                    x0, x1, x2, x3 = inputs[at], inputs[at + 1], inputs[at + 2], inputs[at + 3]
                    x4, x5, x6, x7 = inputs[at + 4], inputs[at + 5], inputs[at + 6], inputs[at + 7]
                    for h in range(high):
                        outputs[h] += (
                            weight[row, k, h] * x0 + weight[row, k + 1, h] * x1
                            + weight[row, k + 2, h] * x2 + weight[row, k + 3, h] * x3
                            + weight[row, k + 4, h] * x4 + weight[row, k + 5, h] * x5
                            + weight[row, k + 6, h] * x6 + weight[row, k + 7, h] * x7
                        )  # fmt: skip
    return result


def _loop_along_examples(x: Array, weight: Array, read: Array, bias: Array, wide: int) -> Array:
    down, deep, high = weight.shape
    most = deep // wide
    result = np.empty((len(x), down * high), x.dtype)
    turned = x.T.copy()  # (inputs, batch)
    outputs = np.empty((high, len(x)), x.dtype)
    for row in range(down):
        for h in range(high):
            outputs[h] = bias[row, 0, h]
        for block in range(most):
            for inside in range(0, wide, 8):
                at, k = read[row * most + block] * wide + inside, block * wide + inside
                x0, x1, x2, x3 = turned[at], turned[at + 1], turned[at + 2], turned[at + 3]
                x4, x5, x6, x7 = turned[at + 4], turned[at + 5], turned[at + 6], turned[at + 7]
                for h in range(high):
                    entries = weight[row, k : k + 8, h]
                    w0, w1, w2, w3 = entries[0], entries[1], entries[2], entries[3]
                    w4, w5, w6, w7 = entries[4], entries[5], entries[6], entries[7]
                    for b in range(len(x)):
                        outputs[h, b] += (
                            w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]
                            + w4 * x4[b] + w5 * x5[b] + w6 * x6[b] + w7 * x7[b]
                        )  # fmt: skip
        result[:, row * high : (row + 1) * high] = outputs.T
    return result


# Sums may be reordered, as by every product of matrices; NaN and infinities are preserved.
_along_outputs: Any = njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)(_loop_along_outputs)
_along_examples: Any = njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)(_loop_along_examples)
