"""Units of a group that go one after another, always those whose going costs least: what has come together by then.

Each matrix that reads the units answers to their going as the optimal brain surgeon has it: the features that stay make
up for those that go as well as the covariance of what is read allows. The inverse covariance loses a few rows and
columns at every step (`inverse_covariances.py`).
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
class ReaderFactor:
    """One matrix that reads a group's units, and the second moments that say what their going costs.

    Args:
        weights: times the root of the curvature along its outputs (outputs, features).
        inverse: of the covariance of what it reads.
        features: of each unit (units, features of a unit).
    """

    weights: Tensor
    inverse: Inverse
    features: Tensor


def eliminate_units(size: int, factors: Sequence[ReaderFactor]) -> Tensor:
    """The cost that has come together when each unit of a group goes. (units,)

    Args:
        size: how many units there are.
        factors: of each matrix that reads them.

    Example:
        >>> from secateur.importance.inverse_covariances import MatrixInverse
        >>> inverse = MatrixInverse(torch.eye(2).double())
        >>> factor = ReaderFactor(torch.tensor([[1.0, 3.0]]).double(), inverse, torch.tensor([[0], [1]]))
        >>> eliminate_units(2, [factor]).tolist()
        [0.5, 5.0]
    """
    eliminations = [_Elimination(factor) for factor in factors]
    remaining = torch.arange(size)
    total, reached = torch.zeros(size, dtype=torch.float64), 0.0
    while len(remaining):
        nothing = torch.zeros(len(remaining), dtype=torch.float64)
        costs = sum((each.costs(remaining).cpu() for each in eliminations), nothing)
        order = costs.argsort(stable=True)[: max(1, len(remaining) // STEPS)]
        gone = remaining[order]
        total[gone] = reached + costs[order].clamp_min(0).cumsum(0) / 2
        reached = float(total[gone[-1]])
        for each in eliminations:
            each.remove(gone)
        stays = torch.ones(len(remaining), dtype=torch.bool).index_fill(0, order, False)
        remaining = remaining[stays]
    return total


class _Elimination:
    """A factor as units go. Features are in the order of their units, those of no unit last.

    Attributes:
        weights: as they make up for what is gone (features, outputs).
        inverse: of the covariance, with those that are gone until they take too much room.
        blocks: the inverse's blocks of each unit, up to date (units, features of a unit, features of a unit).
    """

    def __init__(self, factor: ReaderFactor) -> None:
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
        """What the going of each of these units alone costs. (units,)"""
        count = len(self.blocks)
        weights = self.weights[: count * self.width].unflatten(0, (count, self.width))  # (units, features, outputs)
        at = self.row[units].to(weights.device)
        if self.width == 1:
            alone: Tensor = weights[:, 0].square().sum(1) / self.blocks[:, 0, 0]
            return alone[at]
        grams = (weights @ weights.transpose(1, 2))[at]
        costs: Tensor = torch.linalg.solve(self.blocks[at], grams).diagonal(dim1=1, dim2=2).sum(1)
        return costs

    def remove(self, units: Tensor) -> None:
        """The features that stay make up for those of these units as well as they can."""
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
            self._carry_out()

    def _carry_out(self) -> None:
        """Leave out what is gone."""
        stays = self.alive.repeat_interleave(self.width)
        beyond = torch.ones(len(self.inverse) - len(stays), dtype=torch.bool)
        at = torch.nonzero(torch.cat([stays, beyond])).flatten().to(self.weights.device)
        self.inverse.compact(at)
        self.weights = self.weights[at]
        kept = torch.nonzero(self.alive).flatten()
        self.blocks = self.blocks[kept.to(self.blocks.device)]
        self.row = (self.alive.cumsum(0) - 1)[self.row]  # of those that are gone it is not asked for
        self.alive = self.alive[kept]
