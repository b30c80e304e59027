"""Parameters, MACs and bytes from numbers of units: the cost where each group keeps its first units.

A cost from a mask goes through every axis of every tensor. A planner computes the saving of each group's next unit
thousands of times, so here the axes are counted once, and a group changes only its own.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from secateur.coupling.cost import WHOLE, Cost, Work
from secateur.coupling.effective_macs import channel_axes
from secateur.coupling.group import Group
from secateur.coupling.network import Network


@dataclass(frozen=True, eq=False)
class _GroupAxes:
    """The axes on which the units of a group lie.

    Args:
        axes: the numbers of the axes (axes of the group,).
        entries: the number of entries along them that the first units own (axes of the group, units + 1).
    """

    axes: np.ndarray
    entries: np.ndarray


class PrefixCost:
    """The cost of a network whose groups keep their first units.

    Args:
        network: the network.
        groups: the groups that may lose units; all others are kept whole.
        step: MACs count half as they are, and half with channels counted up to multiples of this.
        mask: which units of all other groups are kept (units + 1,); by default all.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> PrefixCost(network, network.groups).cost(np.array([3]))
        Cost(params=23, macs=18, bytes=92)
    """

    def __init__(self, network: Network, groups: Sequence[Group], step: int = 1, mask: Tensor | None = None) -> None:
        self.network, self.step = network, step
        members = {(member.tensor, member.axis): member.units for member in network.members}
        axes = list(members.values())
        terms = [list(range(len(axes) + at, len(axes) + at + len(term.axes))) for at, term in _starts(network)]
        work_axes = [units for term in network.work for units in term.axes]
        axes += work_axes
        is_rounded = [False] * len(members) + channel_axes(network, work_axes)
        shapes, fixed_sizes = _tensor_axes(network, {key: number for number, key in enumerate(members)}, len(axes))
        self._shapes, self._terms = (_pad_rows(rows, len(axes)) for rows in (shapes, terms))
        self._constants = [term.constant for term in network.work]
        self._itemsizes = np.array([tensor.itemsize for tensor in network.tensors], np.int64)
        self._parameters = np.array([tensor.is_parameter for tensor in network.tensors], bool)
        self._groups = _axes_by_group(groups, axes)
        kept = network.mask({}) if mask is None else mask
        lengths = np.array([int(kept[units].sum()) for units in axes], np.int64)
        self._whole = np.concatenate([lengths, np.array(fixed_sizes, np.int64)])
        self._rounded = np.array([*is_rounded, *[False] * len(fixed_sizes)], bool)

    def cost(self, kept: np.ndarray) -> Cost:
        """Return the cost where each group keeps a number of its first units (groups,)."""
        return self._cost(self._lengths(kept))

    def after(self, kept: np.ndarray, later: np.ndarray) -> Iterator[Cost]:
        """Yield for each group the cost where it alone keeps as many units as later, the others as now (groups,)."""
        lengths = self._lengths(kept)
        for group, count, target in zip(self._groups, kept.tolist(), later.tolist(), strict=True):
            changed_lengths = lengths.copy()
            changed_lengths[group.axes] += group.entries[:, target] - group.entries[:, count]
            yield self._cost(changed_lengths)

    def _lengths(self, kept: np.ndarray) -> np.ndarray:
        """Return the number of remaining entries of each axis, (axes,)."""
        lengths = self._whole.copy()
        for group, count in zip(self._groups, kept.tolist(), strict=True):
            lengths[group.axes] += group.entries[:, count] - group.entries[:, -1]
        return lengths

    def _cost(self, lengths: np.ndarray) -> Cost:
        numels = lengths[self._shapes].prod(1)
        macs = self._macs(lengths)
        if self.step > 1:
            up = -(-lengths // self.step) * self.step
            macs = (macs + self._macs(np.where(self._rounded, up, lengths))) / 2
        return Cost(int(numels[self._parameters].sum()), round(macs), int((numels * self._itemsizes).sum()))

    def _macs(self, lengths: np.ndarray) -> float:
        counts = lengths[self._terms].prod(1).tolist()
        return float(sum(constant * count for constant, count in zip(self._constants, counts, strict=True)))


def _tensor_axes(
    network: Network, number_of: Mapping[tuple[str, int], int], first: int
) -> tuple[list[list[int]], list[int]]:
    """Return the numbers of the axes of each tensor, and the lengths of the axes on which no units lie.

    Args:
        network: the network.
        number_of: the numbers of the axes on which units lie.
        first: the number of the first axis without units.
    """
    fixed_sizes = [1]
    shapes: list[list[int]] = []
    for tensor in network.tensors:
        shapes.append([])
        for axis, length in enumerate(tensor.shape):
            number = number_of.get((tensor.name, axis))
            shapes[-1].append(first + len(fixed_sizes) if number is None else number)
            fixed_sizes += [length] if number is None else []
        whole_axis = number_of.get((tensor.name, WHOLE))
        shapes[-1] += [] if whole_axis is None else [whole_axis]
    return shapes, fixed_sizes


def _starts(network: Network) -> Iterator[tuple[int, Work]]:
    """Return the work of each operator with the number of axes of those before."""
    counts = itertools.accumulate((len(term.axes) for term in network.work), initial=0)
    return zip(counts, network.work, strict=False)


def _axes_by_group(groups: Sequence[Group], axes: Sequence[Tensor]) -> list[_GroupAxes]:
    """Return for each group the axes with its units."""
    group_axes: list[_GroupAxes] = []
    arrays = [units.cpu().numpy() for units in axes]
    highest = [int(units.max(initial=-1)) for units in arrays]
    for group in groups:
        numbers, entries = [], []
        for number, units in enumerate(arrays):
            if highest[number] < group.offset:
                continue
            own_entries = units[(units >= group.offset) & (units < group.offset + group.size)] - group.offset
            if len(own_entries):
                numbers.append(number)
                entries.append(np.concatenate([[0], np.bincount(own_entries, minlength=group.size).cumsum()]))
        table = np.array(entries, np.int64).reshape(len(entries), group.size + 1)
        group_axes.append(_GroupAxes(np.array(numbers, np.int64), table))
    return group_axes


def _pad_rows(rows: Sequence[Sequence[int]], filler: int) -> np.ndarray:
    """Return rows of different lengths as one array, (rows, longest)."""
    longest = max((len(row) for row in rows), default=0)
    return np.array([[*row, *[filler] * (longest - len(row))] for row in rows], np.int64).reshape(len(rows), longest)
