"""In which order groups lose units: for each step the number of the group whose next unit goes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.loss_curves import Curves
from secateur.allocation.remaining_fractions import counted_fractions, fractions
from secateur.coupling.cost import Cost
from secateur.coupling.network import Group, Kept, Network
from secateur.coupling.prefix_cost import PrefixCost
from secateur.evaluation.latency_table import LatencyTable

LOOKS = 25
LOSSES = ("obs",)


@dataclass(frozen=True)
class OrderContext:
    """What an order is for.

    Args:
        units: those of the budget.
        curves: what the loss grows by, by group.
        latency: the times of this machine, where the budget is in latency.
        sizes: the sizes that each group may have, ascending, where units go several at once; None where one by one.
        step: MACs count half as they are, and half with channels counted up to multiples of this.
        base: what stays of other groups, by name.
    """

    units: Sequence[str]
    curves: Curves
    latency: LatencyTable | None
    sizes: Sequence[np.ndarray] | None = None
    step: int = 1
    base: Kept = field(default_factory=dict)


Order = Callable[[Network, Sequence[Group], Sequence[Tensor], OrderContext], np.ndarray]


def uniform(network: Network, groups: Sequence[Group], values: Sequence[Tensor], asked: OrderContext) -> np.ndarray:
    """The same share of every group."""
    return _sorted([(torch.arange(len(value)).double() + 0.5) / len(value) for value in values])


def global_normalised(
    network: Network, groups: Sequence[Group], values: Sequence[Tensor], asked: OrderContext
) -> np.ndarray:
    """One ranking of all units, each score divided by the root of the mean square of its group's (Molchanov et al.
    2017)."""
    scales = [value.square().mean().sqrt() for value in values]
    return _sorted([(v / s if s > 0 else v).sort().values for v, s in zip(values, scales, strict=True)])


def global_raw(network: Network, groups: Sequence[Group], values: Sequence[Tensor], asked: OrderContext) -> np.ndarray:
    """One ranking of all units by their scores as they are (Molchanov et al. 2019)."""
    return _sorted([value.sort().values for value in values])


def loss_aware(network: Network, groups: Sequence[Group], values: Sequence[Tensor], asked: OrderContext) -> np.ndarray:
    """For each step the number of the group that loses its next unit: always where the loss grows least for what is
    saved of the budget's units, along the convex hulls of the curves."""
    corners = _corners(groups, asked)
    slopes = [_hull_slopes(asked.curves[group.name].numpy(), some) for group, some in zip(groups, corners, strict=True)]
    gone = np.zeros(len(groups), int)
    sizes = np.array([group.size for group in groups])
    growth = np.array([slope[0] for slope in slopes])
    savings = _LatencySavings(network, groups, asked) if "latency" in asked.units else _Savings(network, groups, asked)
    total, order = int(sizes.sum()), []
    for step in range(total):
        if step % max(total // LOOKS, 1) == 0:
            saved = savings.of_next(gone)
            ratios = growth / saved
        chosen = int(np.argmin(ratios))
        order.append(chosen)
        gone[chosen] += 1
        growth[chosen] = slopes[chosen][gone[chosen]] if gone[chosen] < sizes[chosen] else np.inf
        ratios[chosen] = growth[chosen] / saved[chosen]
    return np.array(order, int)


def _corners(groups: Sequence[Group], asked: OrderContext) -> list[np.ndarray]:
    """For each group the numbers of units that may be gone, from 0 to all, ascending."""
    if asked.sizes is None:
        return [np.arange(group.size + 1) for group in groups]
    return [np.unique([0, *(group.size - sizes), group.size]) for group, sizes in zip(groups, asked.sizes, strict=True)]


def _hull_slopes(curve: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """The slopes of the convex hull below a curve, or below some of its points. (units,)"""
    corners = [0]
    for at in range(1, len(curve)) if among is None else among[1:].tolist():
        while len(corners) > 1 and _slope(curve, corners[-2], corners[-1]) >= _slope(curve, corners[-1], at):
            corners.pop()
        corners.append(at)
    pairs = itertools.pairwise(corners)
    return np.concatenate([np.full(b - a, max(_slope(curve, a, b), 0.0)) for a, b in pairs]) + 1e-30


def _slope(curve: np.ndarray, first: int, last: int) -> float:
    return float(curve[last] - curve[first]) / (last - first)


class _Savings:
    """What the next unit of each group would save, summed over the budget's units as parts of the dense network."""

    def __init__(self, network: Network, groups: Sequence[Group], asked: OrderContext) -> None:
        self.network, self.groups, self.asked = network, groups, asked
        self.sizes = np.array([group.size for group in groups])
        self.costs = PrefixCost(network, groups, asked.step, network.mask(asked.base))
        self.corners = _corners(groups, asked)

    def of_next(self, gone: np.ndarray) -> np.ndarray:
        """From how many of each group are gone: where several go at once, the mean over these. (groups,)"""
        steps = np.array(
            [_next(corners, count) - count for corners, count in zip(self.corners, gone.tolist(), strict=True)]
        )
        now, after = self._left(gone, steps)
        return np.array([max(now - each, 1e-12) / max(step, 1) for each, step in zip(after, steps, strict=True)])

    def _left(self, gone: np.ndarray, steps: np.ndarray) -> tuple[float, list[float]]:
        """What is left, and for each group what will be left when so many of its units more are gone."""
        kept, total = self.sizes - gone, int(gone.sum())
        after = [
            self._counted(cost, total + step)
            for cost, step in zip(self.costs.after(kept, kept - steps), steps.tolist(), strict=True)
        ]
        return self._counted(self.costs.cost(kept), total), after

    def _counted(self, cost: Cost, gone: int) -> float:
        left = counted_fractions(self.network, cost, gone)
        return sum(left[unit] for unit in self.asked.units)


class _LatencySavings(_Savings):
    """The same where the budget is in latency, among others: by this machine's times, which know masks alone."""

    def _left(self, gone: np.ndarray, steps: np.ndarray) -> tuple[float, list[float]]:
        return self._timed(gone), [self._timed(gone + step) for step in np.diag(steps)]

    def _timed(self, gone: np.ndarray) -> float:
        counts = np.maximum(self.sizes - gone, 0)
        own = {group.name: torch.arange(int(count)) for group, count in zip(self.groups, counts, strict=True)}
        kept = {**own, **self.asked.base}
        cost = self.costs.cost(counts)
        return sum(fractions(self.network, kept, cost, self.asked.units, self.asked.latency).values())


def _next(corners: np.ndarray, gone: int) -> int:
    """How many units of a group are gone when its next ones are; as many as now where none is left."""
    return int(corners[min(int(np.searchsorted(corners, gone, side="right")), len(corners) - 1)])


def between(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Half-way between orders: each unit goes at the mean of its steps."""
    steps = []
    for order in orders:
        by_owner = np.argsort(order, kind="stable")  # the steps of the first group, then of the second, ...
        steps.append(by_owner)
    owner = np.sort(orders[0])
    return owner[np.argsort(np.mean(steps, 0), kind="stable")]


def _sorted(priorities: Sequence[Tensor]) -> np.ndarray:
    owner = np.repeat(np.arange(len(priorities)), [len(each) for each in priorities])
    return owner[np.argsort(torch.cat(list(priorities)).numpy(), kind="stable")] if len(owner) else owner


ORDERS: dict[str, Order] = {"uniform": uniform, "global": global_normalised, "raw": global_raw, "loss": loss_aware}
