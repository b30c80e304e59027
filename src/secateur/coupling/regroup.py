"""Networks with some groups frozen, or with two groups merged into one."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateur.coupling.consumers import ConstantSink
from secateur.coupling.group import Group
from secateur.coupling.members import Frozen, TensorAxis
from secateur.coupling.network import Network


def freeze_groups(network: Network, reasons: Mapping[str, str]) -> Network:
    """Freeze groups of a network, each for a reason.

    Args:
        network: the network.
        reasons: the reasons by group name.
    """
    if not reasons:
        return network
    remaining = [group for group in network.groups if group.name not in reasons]
    number = torch.full((network.units + 1,), -1)
    offset = 0
    for group in remaining:
        number[group.span] = torch.arange(offset, offset + group.size)
        offset += group.size
    frozen = tuple(
        Frozen(group.name, group.size, "", group.name, reasons[group.name])
        for group in network.groups
        if group.name in reasons
    )
    return replace(renumber_units(network, remaining, number), frozen=(*network.frozen, *frozen))


def merge_groups(network: Network, wide: Group, narrow: Group) -> Network:
    """Merge two groups: each unit of one is removed with its share of the units of a larger one.

    Args:
        network: the network.
        wide: the larger group, whose units are merged in their order.
        narrow: the smaller group; its size divides the other's.
    """
    share = wide.size // narrow.size
    bundle = replace(
        wide,
        size=narrow.size,
        kind=wide.kind if wide.kind == narrow.kind else "bundles",
        members=(*wide.members, *(m for m in narrow.members if m not in wide.members)),
        dropouts=tuple(dict.fromkeys((*wide.dropouts, *narrow.dropouts))),
    )
    remaining = [bundle if group is wide else group for group in network.groups if group is not narrow]
    number = torch.full((network.units + 1,), -1)
    offset = 0
    for group in remaining:
        if group is bundle:
            number[wide.span] = torch.arange(offset, offset + narrow.size).repeat_interleave(share)
            number[narrow.span] = torch.arange(offset, offset + narrow.size)
        else:
            number[group.span] = torch.arange(offset, offset + group.size)
        offset += group.size
    reshaping = {
        **network.reshaping,
        wide.name: tuple(dict.fromkeys((*network.reshaping[wide.name], *network.reshaping[narrow.name]))),
    }
    return replace(renumber_units(network, remaining, number), reshaping=reshaping)


def renumber_units(network: Network, groups: Sequence[Group], number: Tensor) -> Network:
    """Give the units of some groups new numbers, and remove all other groups.

    Args:
        network: the network.
        groups: the groups that remain.
        number: the new number of each unit, -1 for none (units + 1,).
    """
    members = [replace(member, units=number[member.units]) for member in network.members]
    return replace(
        network,
        groups=_consecutive_groups(groups, {(member.tensor, member.axis): member for member in members}),
        members=tuple(member for member in members if _any_unit(member.units)),
        consumers=tuple(
            replace(consumer, units=number[consumer.units], fold=_renumber_sink(consumer.fold, number))
            for consumer in network.consumers
            if _any_unit(number[consumer.units])
        ),
        work=tuple(replace(term, axes=tuple(number[axis] for axis in term.axes)) for term in network.work),
        attribute_updates=tuple(replace(update, units=number[update.units]) for update in network.attribute_updates),
        draws=tuple(draw.renumbered(lambda units: number[units]) for draw in network.draws),
        sizes=tuple(size.renumbered(lambda units: number[units]) for size in network.sizes),
        additions=tuple(
            replace(addition, units=number[addition.units])
            for addition in network.additions
            if _any_unit(number[addition.units])
        ),
    )


def _any_unit(units: Tensor) -> bool:
    return bool((units >= 0).any())


def _consecutive_groups(groups: Sequence[Group], members: Mapping[tuple[str, int], TensorAxis]) -> tuple[Group, ...]:
    """Return groups whose units follow one another, with their members by tensor and axis."""
    offsets = itertools.accumulate((group.size for group in groups), initial=0)
    return tuple(
        replace(group, offset=offset, members=tuple(members[member.tensor, member.axis] for member in group.members))
        for group, offset in zip(groups, offsets, strict=False)
    )


def _renumber_sink(fold: ConstantSink | None, number: Tensor) -> ConstantSink | None:
    return None if fold is None else replace(fold, outputs=number[fold.outputs])
