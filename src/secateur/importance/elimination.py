"""Removal of a group's units one after another, always those of the least cost, and the sum of the costs by then.

Each consumer of the units follows the optimal brain surgeon: the kept features compensate for the removed ones as well
as the covariance of its input allows. The inverse covariance loses a few rows and columns at every step
(`inverse_covariances.py`).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.inverse_covariances import Inverse

STEPS = 64
BLOCK = 256


@dataclass(frozen=True, eq=False)
class ConsumerFactor:
    """One consumer of a group's units, and the second moments that give the cost of their removal.

    Args:
        weights: its weights times the root of the curvature along its outputs (outputs, features).
        inverse: the inverse covariance of its input.
        features: the features of each unit (units, features of a unit).
    """

    weights: Tensor
    inverse: Inverse
    features: Tensor


def eliminate_units(size: int, factors: Sequence[ConsumerFactor]) -> Tensor:
    """Return the sum of the costs when each unit of a group is removed, (units,).

    Args:
        size: the number of units.
        factors: the consumers of the units.

    Examples:
        >>> from secateur.importance.inverse_covariances import MatrixInverse
        >>> inverse = MatrixInverse(torch.eye(2).double())
        >>> factor = ConsumerFactor(torch.tensor([[1.0, 3.0]]).double(), inverse, torch.tensor([[0], [1]]))
        >>> eliminate_units(2, [factor]).tolist()
        [0.5, 5.0]
    """
    eliminations = [_Elimination(factor) for factor in factors]
    remaining = torch.arange(size)
    total, increase = torch.zeros(size, dtype=torch.float64), 0.0
    while len(remaining):
        zeros = torch.zeros(len(remaining), dtype=torch.float64)
        costs = sum((elimination.costs(remaining).cpu() for elimination in eliminations), zeros)
        order = costs.argsort(stable=True)[: max(1, len(remaining) // STEPS)]
        removed_unit = remaining[order]
        total[removed_unit] = increase + costs[order].clamp_min(0).cumsum(0) / 2
        increase = float(total[removed_unit[-1]])
        for elimination in eliminations:
            elimination.remove(removed_unit)
        is_kept = torch.ones(len(remaining), dtype=torch.bool).index_fill(0, order, False)
        remaining = remaining[is_kept]
    return total


class _Elimination:
    """A consumer as units are removed. Features are in the order of their units, those of no unit last.

    Attributes:
        weights: the weights that compensate for the removed units (features, outputs).
        inverse: the inverse covariance, with removed features until they take too much memory.
        blocks: the inverse's blocks of each unit, up to date (units, features of a unit, features of a unit).
    """

    def __init__(self, factor: ConsumerFactor) -> None:
        units, self.width = factor.features.shape
        count = len(factor.inverse)
        order = factor.features.flatten().to(factor.weights.device)
        others = torch.ones(count, dtype=torch.bool, device=order.device).index_fill(0, order, False)
        order = torch.cat([order, torch.nonzero(others).flatten()])
        self.weights = factor.weights.t()[order].contiguous()
        self.inverse = copy(factor.inverse)
        self.inverse.compact(order)
        self.row = torch.arange(units)  # of each unit the number of its block
        self.alive = torch.ones(units, dtype=torch.bool)
        self.blocks = self.inverse.blocks(self.width, units)

    def costs(self, units: Tensor) -> Tensor:
        """Return the cost of the removal of each of these units alone, (units,)."""
        count = len(self.blocks)
        weights = self.weights[: count * self.width].unflatten(0, (count, self.width))  # (units, features, outputs)
        at = self.row[units].to(weights.device)
        if self.width == 1:
            unit_costs: Tensor = weights[:, 0].square().sum(1) / self.blocks[:, 0, 0]
            return unit_costs[at]
        grams = (weights @ weights.transpose(1, 2))[at]
        costs: Tensor = torch.linalg.solve(self.blocks[at], grams).diagonal(dim1=1, dim2=2).sum(1)
        return costs

    def remove(self, units: Tensor) -> None:
        """Remove units, with the best compensation by the kept features."""
        rows = self.row[units].to(self.weights.device)
        at = (rows[:, None] * self.width + torch.arange(self.width, device=rows.device)).flatten()
        lines = self.inverse.lines(at)  # (features of these units, features)
        pivot = torch.linalg.solve(lines[:, at], lines)
        self.weights -= pivot.t() @ self.weights[at]
        self.weights[at] = 0
        count = len(self.blocks) * self.width
        changes = lines[:, :count].t().unflatten(0, (-1, self.width))  # (units, features, features of these units)
        self.blocks -= changes @ pivot[:, :count].unflatten(1, (-1, self.width)).transpose(0, 1)
        self.blocks[rows] = torch.eye(self.width, dtype=self.blocks.dtype, device=self.blocks.device)
        self.alive[self.row[units]] = False
        self.inverse.remove(at, lines, pivot)
        if self.inverse.pending >= BLOCK:
            self._drop_removed()

    def _drop_removed(self) -> None:
        """Free the memory of the removed units."""
        is_kept = self.alive.repeat_interleave(self.width)
        beyond = torch.ones(len(self.inverse) - len(is_kept), dtype=torch.bool)
        at = torch.nonzero(torch.cat([is_kept, beyond])).flatten().to(self.weights.device)
        self.inverse.compact(at)
        self.weights = self.weights[at]
        kept = torch.nonzero(self.alive).flatten()
        self.blocks = self.blocks[kept.to(self.blocks.device)]
        self.row = (self.alive.cumsum(0) - 1)[self.row]  # never read for removed units
        self.alive = self.alive[kept]
