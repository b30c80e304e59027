"""Small blocks of a layer's weight: free, unified to one absolute value, or pruned (Lin et al. 2021).

A block shape has one side for each axis of the weight, (filters, inputs, *kernel): (4, 4, 1, 1) takes 4 filters and 4
input channels at one place of the kernel, as the group's patents cut. A shape of two sides, (filters, inputs), is of
the matrix of filters x what each filter multiplies, whatever the weight's axes. Where the shape does not divide the
weight, blocks at its end are smaller: what fills them up counts for nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FREE, UNIFIED, PRUNED = 0, 1, 2


@dataclass(frozen=True)
class Blocks:
    """The division of a weight into blocks.

    Args:
        weight: the shape of the weight.
        shape: the shape of a block: a side for each axis of the weight, or (filters, inputs) of its matrix.

    Examples:
        >>> blocks = Blocks((4, 4, 3, 3), (2, 4, 1, 1))
        >>> blocks.grid, blocks.cut(torch.ones(4, 4, 3, 3)).shape
        ((2, 1, 3, 3), torch.Size([18, 8]))
    """

    weight: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """The lengths of the axes that the shape's sides are of."""
        if len(self.shape) == len(self.weight):
            return self.weight
        return self.weight[0], math.prod(self.weight[1:])

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of blocks along each axis."""
        return tuple(-(-length // side) for length, side in zip(self.axes, self.shape, strict=True))

    @property
    def count(self) -> int:
        """The number of blocks."""
        return math.prod(self.grid)

    def cut(self, weight: Tensor) -> Tensor:
        """Return the weight's blocks, padded with zeros (blocks, entries)."""
        missing = [count * side - length for count, side, length in zip(self.grid, self.shape, self.axes, strict=True)]
        padded_weight = F.pad(weight.reshape(self.axes), [size for last in reversed(missing) for size in (0, last)])
        weight_in_blocks = padded_weight.view(
            [size for pair in zip(self.grid, self.shape, strict=True) for size in pair]
        )
        blocks: Tensor = weight_in_blocks.permute(_evens_then_odds(len(self.shape))).reshape(
            self.count, math.prod(self.shape)
        )
        return blocks

    def join(self, blocks: Tensor) -> Tensor:
        """Return the weight with given blocks (blocks, entries)."""
        rank = len(self.shape)
        weight_in_blocks = blocks.view(*self.grid, *self.shape)
        order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
        padded_weight = weight_in_blocks.permute(order).reshape(
            [count * side for count, side in zip(self.grid, self.shape, strict=True)]
        )
        return padded_weight[tuple(slice(length) for length in self.axes)].reshape(self.weight)

    def sizes(self) -> Tensor:
        """Return the number of weights in each block (blocks,)."""
        return self.cut(torch.ones(self.weight, dtype=torch.float64)).sum(1)


def _evens_then_odds(rank: int) -> list[int]:
    """Return the order of axes that brings (grid, side) of each axis to all grids and then all sides."""
    return [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]


def signs(values: Tensor) -> Tensor:
    """Return -1 for values below zero, else 1."""
    return torch.where(values < 0, -1, 1).to(values)


def labels_of(blocks: Blocks, weight: Tensor, pruned: float, unified: float) -> Tensor:
    """Return the blocks to prune and to unify, such that the weight changes least, as kinds (blocks,).

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
    removed_blocks = order[: round(pruned * blocks.count)]
    labels[removed_blocks] = PRUNED
    spread = spread.cpu()
    spread[removed_blocks] = torch.inf
    labels[spread.argsort(stable=True)[: min(round(unified * blocks.count), blocks.count - len(removed_blocks))]] = (
        UNIFIED
    )
    return labels


def project(blocks: Blocks, weight: Tensor, labels: Tensor) -> Tensor:
    """Return the nearest weight of a structure: in a unified block the mean absolute value, with each weight's sign."""
    values = blocks.cut(weight)
    labels = labels.to(weight.device)
    level = values.abs().sum(1) / blocks.sizes().to(values)
    shared_values = signs(values) * level[:, None]
    structured_values = torch.where((labels == UNIFIED)[:, None], shared_values, values)
    return blocks.join(structured_values.masked_fill((labels == PRUNED)[:, None], 0))


def existing_labels(blocks: Blocks, weight: Tensor) -> Tensor:
    """Return the kinds of the blocks that a weight has already (blocks,)."""
    values, real = blocks.cut(weight.detach()), blocks.cut(torch.ones_like(weight.detach())) > 0
    size = values.abs()
    largest = size.amax(1)
    smallest = size.masked_fill(~real, torch.inf).amin(1)
    labels = torch.full((blocks.count,), FREE)
    labels[(largest == smallest).cpu()] = UNIFIED
    labels[((largest == 0) & ~values.signbit().any(1)).cpu()] = PRUNED
    labels[((largest == 0) & values.signbit().any(1)).cpu()] = FREE  # minus zero is written as it is
    return labels
