"""Strategies of allocation: the order in which groups lose units, as the number of the group for each step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.loss_curves import Curves
from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.evaluation.latency_table import LatencyTable

LOSSES = ("obs",)


@dataclass(frozen=True, eq=False)
class OrderContext:
    """The groups that units are removed from, and what the order may depend on besides their scores.

    Args:
        network: the network.
        groups: the groups that may lose units.
        units: of the budget.
        curves: the loss by the number of removed units, by group.
        latency: the times of this machine, where the budget is in latency.
        sizes: for each group the sizes that it may have, ascending.
        step: channels that kernels work on at once. Above 1 units are removed several at once, and MACs count half as
            they are, and half with channels counted up to multiples of the step.
        base: the units that are kept of other groups, by name: of blocks that are units beside others.
    """

    network: Network
    groups: tuple[Group, ...]
    units: Sequence[str] = ()
    curves: Curves = field(default_factory=dict)
    latency: LatencyTable | None = None
    sizes: tuple[np.ndarray, ...] = ()
    step: int = 1
    base: Kept = field(default_factory=dict)


Strategy = Callable[[OrderContext, Sequence[Tensor]], np.ndarray]


def uniform(context: OrderContext, values: Sequence[Tensor]) -> np.ndarray:
    """Order so that every group loses the same fraction, (units,).

    Args:
        context: the groups.
        values: the scores of each group's units. (units of the group,)
    """
    return _sorted_owners([(torch.arange(len(value)).double() + 0.5) / len(value) for value in values])


def global_normalised(context: OrderContext, values: Sequence[Tensor]) -> np.ndarray:
    """Order by one ranking of all units, each score divided by the root of the mean square of its group's, (units,).

    After Molchanov et al. 2017.

    Args:
        context: the groups.
        values: the scores of each group's units. (units of the group,)
    """
    scales = [value.square().mean().sqrt() for value in values]
    return _sorted_owners([(v / s if s > 0 else v).sort().values for v, s in zip(values, scales, strict=True)])


def global_raw(context: OrderContext, values: Sequence[Tensor]) -> np.ndarray:
    """Order by one ranking of all units by their scores as they are (Molchanov et al. 2019), (units,).

    Args:
        context: the groups.
        values: the scores of each group's units. (units of the group,)
    """
    return _sorted_owners([value.sort().values for value in values])


def halfway_order(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Return the order half-way between several: each unit is removed at the mean of its steps, (units,).

    Args:
        orders: for each step the number of a group. (units,) each
    """
    steps = [np.argsort(order, kind="stable") for order in orders]  # of the first group, then of the second, ...
    owners = np.sort(orders[0])
    return owners[np.argsort(np.mean(steps, 0), kind="stable")]


def _sorted_owners(priorities: Sequence[Tensor]) -> np.ndarray:
    """Return the group of each unit, in ascending order of the units' priorities, (units,)."""
    owners = np.repeat(np.arange(len(priorities)), [len(values) for values in priorities])
    return owners[np.argsort(torch.cat(list(priorities)).numpy(), kind="stable")] if len(owners) else owners


STRATEGIES: Mapping[str, Strategy] = {"uniform": uniform, "global": global_normalised, "raw": global_raw}
