"""The allocation by the loss: each step removes a unit where the loss increases least for what is saved."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.budget import LATENCY
from secateur.allocation.remaining_fractions import counted_fractions, fractions
from secateur.allocation.strategies import OrderContext
from secateur.coupling.cost import Cost
from secateur.coupling.prefix_cost import PrefixCost

REFRESHES = 25


def loss_aware(context: OrderContext, values: Sequence[Tensor]) -> np.ndarray:
    """Order by the increase of the loss for what is saved of the budget's units, (units,).

    Each step removes the next unit of the group whose curve's convex hull has the least slope for the saving. Savings
    are computed anew a few times on the way.

    Args:
        context: the groups, with their curves.
        values: the scores of each group's units, which the curves stand for. (units of the group,)
    """
    corners = _corners(context)
    slopes = [
        hull_slopes(context.curves[group.name].numpy(), points)
        for group, points in zip(context.groups, corners, strict=True)
    ]
    savings = (_LatencySavings if LATENCY in context.units else _Savings)(context, corners)
    removal_counts = np.zeros(len(context.groups), int)
    increases = np.array([slope[0] for slope in slopes])
    total, order = int(savings.sizes.sum()), list[int]()
    for step in range(total):
        if step % max(total // REFRESHES, 1) == 0:
            group_savings = savings.next_savings(removal_counts)
            ratios = increases / group_savings
        best_group = int(np.argmin(ratios))
        order.append(best_group)
        removal_counts[best_group] += 1
        is_empty = removal_counts[best_group] == savings.sizes[best_group]
        increases[best_group] = np.inf if is_empty else slopes[best_group][removal_counts[best_group]]
        ratios[best_group] = increases[best_group] / group_savings[best_group]
    return np.array(order, int)


def _corners(context: OrderContext) -> list[np.ndarray]:
    """Return for each group the numbers of units that may be removed, from 0 to all, ascending."""
    if context.step == 1:
        return [np.arange(group.size + 1) for group in context.groups]
    pairs = zip(context.groups, context.sizes, strict=True)
    return [np.unique([0, *(group.size - sizes), group.size]) for group, sizes in pairs]


def hull_slopes(curve: np.ndarray, points: np.ndarray | None = None) -> np.ndarray:
    """Return the slopes of the convex hull below a curve, (units,).

    Args:
        curve: the loss by the number of removed units. (units + 1,)
        points: the numbers of removed units that the hull may touch, from 0 to all; any by default.

    Examples:
        >>> hull_slopes(np.array([0.0, 3.0, 4.0])).round(6).tolist()
        [2.0, 2.0]
    """
    corners = [0]
    for point in range(1, len(curve)) if points is None else points[1:].tolist():
        while len(corners) > 1 and _slope(curve, corners[-2], corners[-1]) >= _slope(curve, corners[-1], point):
            corners.pop()
        corners.append(point)
    pairs = itertools.pairwise(corners)
    return np.concatenate([np.full(b - a, max(_slope(curve, a, b), 0.0)) for a, b in pairs]) + 1e-30


def _slope(curve: np.ndarray, first: int, last: int) -> float:
    return float(curve[last] - curve[first]) / (last - first)


class _Savings:
    """The savings of the next unit of each group, summed over the budget's units as fractions of the dense network."""

    def __init__(self, context: OrderContext, corners: Sequence[np.ndarray]) -> None:
        self.context, self.corners = context, corners
        self.sizes = np.array([group.size for group in context.groups])
        mask = context.network.mask(context.base)
        self.costs = PrefixCost(context.network, context.groups, context.step, mask)

    def next_savings(self, removal_counts: np.ndarray) -> np.ndarray:
        """Return the saving of each group's next unit; where several are removed at once, their mean, (groups,).

        Args:
            removal_counts: how many units of each group are removed already. (groups,)
        """
        pairs = zip(self.corners, removal_counts.tolist(), strict=True)
        steps = np.array([_next_corner(corners, count) - count for corners, count in pairs])
        before, after = self._fractions(removal_counts, steps)
        savings: np.ndarray = np.maximum(before - np.array(after), 1e-12) / np.maximum(steps, 1)
        return savings

    def _fractions(self, removal_counts: np.ndarray, steps: np.ndarray) -> tuple[float, list[float]]:
        """Return the fraction that is kept, and for each group the one after so many more of its units are removed."""
        kept, total = self.sizes - removal_counts, int(removal_counts.sum())
        after = [
            self._sum_of_fractions(cost, total + step)
            for cost, step in zip(self.costs.after(kept, kept - steps), steps.tolist(), strict=True)
        ]
        return self._sum_of_fractions(self.costs.cost(kept), total), after

    def _sum_of_fractions(self, cost: Cost, removal_count: int) -> float:
        kept = counted_fractions(self.context.network, cost, removal_count)
        return sum(kept[unit] for unit in self.context.units)


class _LatencySavings(_Savings):
    """The savings for a budget in latency, among others, by this machine's times, which are looked up by masks."""

    def _fractions(self, removal_counts: np.ndarray, steps: np.ndarray) -> tuple[float, list[float]]:
        return self._sum_with_latency(removal_counts), [
            self._sum_with_latency(removal_counts + step) for step in np.diag(steps)
        ]

    def _sum_with_latency(self, removal_counts: np.ndarray) -> float:
        context, counts = self.context, np.maximum(self.sizes - removal_counts, 0)
        prefixes = {group.name: torch.arange(int(count)) for group, count in zip(context.groups, counts, strict=True)}
        kept = {**prefixes, **context.base}
        kept_fractions = fractions(context.network, kept, self.costs.cost(counts), context.units, context.latency)
        return sum(kept_fractions.values())


def _next_corner(corners: np.ndarray, removal_count: int) -> int:
    """Return how many units of a group are removed once its next ones are; as many as now where none is left."""
    return int(corners[min(int(np.searchsorted(corners, removal_count, side="right")), len(corners) - 1)])
