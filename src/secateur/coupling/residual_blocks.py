"""Whole blocks of a residual network as units: without one, the skip alone remains."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.cost import WHOLE
from secateur.coupling.group import Group
from secateur.coupling.members import TensorAxis
from secateur.coupling.network import Network
from secateur.coupling.removable_blocks import RemovableBlock, home_path, is_within, symbolic_shape


def of_blocks(network: Network, blocks: Sequence[RemovableBlock]) -> Network:
    """Return the network with these blocks as its only units.

    Args:
        network: the network as label tracing found it.
        blocks: the blocks that can be removed.
    """
    unit_of = {block.path: number for number, block in enumerate(blocks)}
    members = tuple(_block_members(network, unit_of))
    group = Group("blocks", len(blocks), 0, "blocks", members, (), 0, tuple(unit_of))
    consumers = tuple(
        Consumer(node, branch, len(symbolic_shape(node)) - 1, _unit_everywhere(node, unit_of[block.path]), None)
        for block in blocks
        for node, branch in block.branches
    )
    return replace(
        network,
        groups=(group,) if blocks else (),
        members=members,
        consumers=consumers,
        work=tuple(
            replace(term, constant=term.constant * _entry_count(term.axes), axes=_block_axis(term.module, unit_of))
            for term in network.work
        ),
        frozen=(),
        reshaping={"blocks": ()},
        sizes=(),
        attribute_updates=(),
        draws=tuple(replace(draw, units=()) for draw in network.draws),
        additions=(),
    )


def with_blocks(network: Network, blocks: Sequence[RemovableBlock]) -> Network:
    """Return the network with these blocks as units beside its others.

    A block owns its tensors as a whole, whatever entries of them the units within own.

    Args:
        network: the network with its other groups.
        blocks: the blocks that can be removed.
    """
    if not blocks:
        return network
    block_group, offset = of_blocks(network, blocks), network.units
    group = block_group.groups[0]
    members = tuple(
        replace(member, axis=WHOLE, units=member.units[:1] + offset, is_producer=False) for member in group.members
    )
    consumers = tuple(replace(consumer, units=consumer.units + offset) for consumer in block_group.consumers)
    owners = (
        _block_axis(term.module, {block.path: number for number, block in enumerate(blocks)}) for term in network.work
    )
    return replace(
        network,
        groups=(*network.groups, replace(group, offset=offset, members=members)),
        members=(*network.members, *members),
        consumers=(*network.consumers, *consumers),
        work=tuple(
            replace(term, axes=(*term.axes, *(unit + offset for unit in owner)))
            for term, owner in zip(network.work, owners, strict=True)
        ),
        reshaping={**network.reshaping, group.name: ()},
    )


def without_blocks(network: Network) -> Network:
    """Return the network without the blocks that are units beside others, as tracing found it."""
    group = blocks_of(network)
    if group is None:
        return network
    offset = group.offset
    return replace(
        network,
        groups=tuple(other for other in network.groups if other is not group),
        members=tuple(member for member in network.members if member.axis != WHOLE),
        consumers=tuple(consumer for consumer in network.consumers if not bool((consumer.units >= offset).any())),
        work=tuple(
            replace(term, axes=tuple(axis for axis in term.axes if not bool((axis >= offset).any())))
            for term in network.work
        ),
        reshaping={name: paths for name, paths in network.reshaping.items() if name != group.name},
    )


def blocks_of(network: Network) -> Group | None:
    """Return the group of blocks that are units beside others, if there is one."""
    return next((group for group in network.groups if group.block_paths and len(network.groups) > 1), None)


def removed_blocks(network: Network, mask: Tensor) -> tuple[str, ...]:
    """Return the paths of the blocks that are removed as a whole. `mask` holds which units are kept (units + 1,)."""
    return tuple(
        path
        for group in network.groups
        for path, stays in zip(group.block_paths, mask[group.span].tolist(), strict=False)
        if not stays
    )


def is_inside(name: str, paths: Sequence[str]) -> bool:
    """Return whether a module or a tensor is one of these modules, or lies within one."""
    return any(is_within(name, path) for path in paths)


def groups_inside(network: Network, paths: Sequence[str]) -> list[Group]:
    """Return the groups that lie within these modules alone."""
    return [
        group
        for group in network.groups
        if not group.block_paths and group.members and all(is_inside(member.tensor, paths) for member in group.members)
    ]


def _block_members(network: Network, unit_of: Mapping[str, int]) -> Iterator[TensorAxis]:
    """Yield every parameter and buffer that lies in a block and is used nowhere else."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for node, name in network.program.state_names.items():
        users[name] |= {_block_of(home_path(user), unit_of) for user in node.users}
    for tensor in network.tensors:
        path = _block_of(tensor.name, unit_of)
        if path and users[tensor.name] <= {path}:
            axis = 0 if tensor.shape else WHOLE
            units = torch.full(tensor.shape[:1] or (1,), unit_of[path])
            yield TensorAxis(tensor.name, axis, units, is_producer=bool(tensor.shape))


def _block_of(name: str, unit_of: Mapping[str, int]) -> str:
    """Return the path of the block that a module or tensor lies in, "" for none."""
    return next((path for path in unit_of if is_within(name, path)), "")


def _unit_everywhere(node: Node, unit: int) -> Tensor:
    return torch.full((int(node.meta["val"].shape[-1]),), unit)


def _entry_count(axes: Sequence[Tensor]) -> int:
    total = 1
    for axis in axes:
        total *= len(axis)
    return total


def _block_axis(module: str, unit_of: Mapping[str, int]) -> tuple[Tensor, ...]:
    path = _block_of(module, unit_of)
    return (torch.tensor([unit_of[path]]),) if path else ()
