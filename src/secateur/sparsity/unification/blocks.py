"""Small blocks of a weight's matrix: free, unified to one absolute value, or pruned (Lin et al. 2021).

The weight of a layer is a matrix of filters x what each filter multiplies; block shapes are (filters, inputs). Where
the shape does not divide the matrix, blocks at its end are smaller: what fills them up counts for nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FREE, UNIFIED, PRUNED = 0, 1, 2


@dataclass(frozen=True)
class Blocks:
    """How a weight falls into blocks.

    Args:
        weight: its shape.
        shape: of a block: (filters, inputs).
    """

    weight: tuple[int, ...]
    shape: tuple[int, int]

    @property
    def matrix(self) -> tuple[int, int]:
        return self.weight[0], math.prod(self.weight[1:])

    @property
    def grid(self) -> tuple[int, int]:
        """How many blocks there are along each axis."""
        return -(-self.matrix[0] // self.shape[0]), -(-self.matrix[1] // self.shape[1])

    @property
    def count(self) -> int:
        return math.prod(self.grid)

    def cut(self, weight: Tensor) -> Tensor:
        """The weight's blocks, filled up with zeros. (blocks, entries)"""
        (rows, columns), (high, wide), (down, across) = self.matrix, self.shape, self.grid
        padded = F.pad(weight.reshape(rows, columns), (0, across * wide - columns, 0, down * high - rows))
        blocks: Tensor = padded.view(down, high, across, wide).transpose(1, 2).reshape(self.count, high * wide)
        return blocks

    def join(self, blocks: Tensor) -> Tensor:
        """The weight that blocks (blocks, entries) make."""
        (rows, columns), (high, wide), (down, across) = self.matrix, self.shape, self.grid
        padded = blocks.view(down, across, high, wide).transpose(1, 2).reshape(down * high, across * wide)
        return padded[:rows, :columns].reshape(self.weight)

    def sizes(self) -> Tensor:
        """How many weights each block holds. (blocks,)"""
        return self.cut(torch.ones(self.weight, dtype=torch.float64)).sum(1)


def signs(values: Tensor) -> Tensor:
    """-1 for what is below zero, else 1."""
    return torch.where(values < 0, -1, 1).to(values)


def labels_of(blocks: Blocks, weight: Tensor, pruned: float, unified: float) -> Tensor:
    """Which blocks are pruned and which unified, where that changes the weight least. (blocks,)

    Of all blocks those of the smallest sum of squares are pruned; of the others those are unified whose weights differ
    least in absolute value, by the sum of squares about the mean.

    Args:
        blocks: of the weight.
        weight: the weight.
        pruned: the fraction of blocks to prune.
        unified: the fraction of blocks to unify.
    """
    values, sizes = blocks.cut(weight.detach().double()), blocks.sizes().to(weight.device)
    squares = values.square().sum(1)
    spread = squares - values.abs().sum(1).square() / sizes
    labels = torch.full((blocks.count,), FREE)
    order = squares.argsort(stable=True).cpu()
    gone = order[: round(pruned * blocks.count)]
    labels[gone] = PRUNED
    spread = spread.cpu()
    spread[gone] = torch.inf
    labels[spread.argsort(stable=True)[: min(round(unified * blocks.count), blocks.count - len(gone))]] = UNIFIED
    return labels


def projected(blocks: Blocks, weight: Tensor, labels: Tensor) -> Tensor:
    """The nearest weight of that structure: in a unified block the mean absolute value, with each weight's sign."""
    values = blocks.cut(weight)
    labels = labels.to(weight.device)
    level = values.abs().sum(1) / blocks.sizes().to(values)
    shared = signs(values) * level[:, None]
    found = torch.where((labels == UNIFIED)[:, None], shared, values)
    return blocks.join(torch.where((labels == PRUNED)[:, None], torch.zeros_like(found), found))


def found_labels(blocks: Blocks, weight: Tensor) -> Tensor:
    """Which blocks of a weight are pruned or unified, as it is. (blocks,)"""
    values, real = blocks.cut(weight.detach()), blocks.cut(torch.ones_like(weight.detach())) > 0
    size = values.abs()
    largest = size.amax(1)
    smallest = size.masked_fill(~real, torch.inf).amin(1)
    labels = torch.full((blocks.count,), FREE)
    labels[(largest == smallest).cpu()] = UNIFIED
    labels[((largest == 0) & ~values.signbit().any(1)).cpu()] = PRUNED
    labels[((largest == 0) & values.signbit().any(1)).cpu()] = FREE  # minus zero is written as it is
    return labels
