"""Whole blocks of a residual network as units: without one, the skip alone remains."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.cost import WHOLE
from secateur.coupling.members import TensorAxis
from secateur.coupling.network import Group, Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import module_path
from secateur.graph.program import Program


@dataclass(frozen=True, eq=False)
class RemovableBlock:
    """A module whose output is its input plus one or more branches.

    Args:
        path: the module's path.
        branches: for each sum the operator and the name of the argument that is the branch.
    """

    path: str
    branches: tuple[tuple[Node, str], ...]


def find_blocks(program: Program) -> Iterator[RemovableBlock]:
    """Yield the modules that add branches to their input, each to the sum before."""
    sums: defaultdict[str, list[Node]] = defaultdict(list)
    for node in program.nodes:
        if rule_of(node).sums == "add":
            sums[module_path(node)].append(node)
    for path, nodes in sums.items():
        branches = _branches(program, path, nodes) if path else None
        if branches:
            yield RemovableBlock(path, tuple(branches))


def _branches(program: Program, path: str, sums: Sequence[Node]) -> list[tuple[Node, str]] | None:
    """Return the branch of each sum, where the other operand leads back to the module's input; None otherwise."""
    branches: list[tuple[Node, str]] = []
    current: Node | None = None
    for node in sums:
        operands = dict(zip(("self", "other"), node.args, strict=False))
        values = {name: value for name, value in operands.items() if isinstance(value, Node)}
        if len(values) != 2 or any(_shape(value) != _shape(node) for value in values.values()):
            continue
        skips = [name for name, value in values.items() if _leads_back(program, value, current, path)]
        if len(skips) != 1:
            return None
        (branch,) = values.keys() - set(skips)
        branches.append((node, branch))
        current = node
    return branches or None


def _leads_back(program: Program, value: Node, current: Node | None, path: str) -> bool:
    """Return whether a value is the sum before, or comes from outside the module; copies of it count as itself."""
    while value is not current and rule_of(value).copies:
        first = value.args[0]
        if not isinstance(first, Node) or not _within(module_path(value), path):
            break
        value = first
    if current is not None:
        return value is current
    return value not in program.state_names and not _within(_home(value), path)


def _home(value: Node) -> str:
    """Return the path of the module that computes a value, "" for inputs and parameters."""
    return module_path(value) if value.op == "call_function" else ""


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _shape(node: Node) -> tuple[str, ...]:
    return tuple(str(length) for length in getattr(node.meta.get("val"), "shape", ()))


def of_blocks(network: Network, blocks: Sequence[RemovableBlock]) -> Network:
    """Return the network with these blocks as its only units.

    Args:
        network: the network as label tracing found it.
        blocks: the blocks that can be removed.
    """
    unit_of = {block.path: number for number, block in enumerate(blocks)}
    members = tuple(_members(network, unit_of))
    group = Group("blocks", len(blocks), 0, "blocks", members, (), 0, tuple(unit_of))
    consumers = tuple(
        Consumer(node, branch, len(_shape(node)) - 1, _unit_everywhere(node, unit_of[block.path]), None)
        for block in blocks
        for node, branch in block.branches
    )
    return replace(
        network,
        groups=(group,) if blocks else (),
        members=members,
        consumers=consumers,
        work=tuple(
            replace(term, constant=term.constant * _entries(term.axes), axes=_owner(term.module, unit_of))
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
    alone, offset = of_blocks(network, blocks), network.units
    group = alone.groups[0]
    members = tuple(
        replace(member, axis=WHOLE, units=member.units[:1] + offset, is_producer=False) for member in group.members
    )
    consumers = tuple(replace(consumer, units=consumer.units + offset) for consumer in alone.consumers)
    owners = (_owner(term.module, {block.path: number for number, block in enumerate(blocks)}) for term in network.work)
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


def is_inside(name: str, paths: Sequence[str]) -> bool:
    """Return whether a module or a tensor is one of these modules, or lies within one."""
    return any(_within(name, path) for path in paths)


def groups_inside(network: Network, paths: Sequence[str]) -> list[Group]:
    """Return the groups that lie within these modules alone."""
    return [
        group
        for group in network.groups
        if not group.block_paths and group.members and all(is_inside(member.tensor, paths) for member in group.members)
    ]


def _members(network: Network, unit_of: Mapping[str, int]) -> Iterator[TensorAxis]:
    """Yield every parameter and buffer that lies in a block and is used nowhere else."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for node, name in network.program.state_names.items():
        users[name] |= {_block_of(_home(user), unit_of) for user in node.users}
    for tensor in network.tensors:
        path = _block_of(tensor.name, unit_of)
        if path and users[tensor.name] <= {path}:
            axis = 0 if tensor.shape else WHOLE
            units = torch.full(tensor.shape[:1] or (1,), unit_of[path])
            yield TensorAxis(tensor.name, axis, units, is_producer=bool(tensor.shape))


def _block_of(name: str, unit_of: Mapping[str, int]) -> str:
    """Return the path of the block that a module or tensor lies in, "" for none."""
    return next((path for path in unit_of if _within(name, path)), "")


def _unit_everywhere(node: Node, unit: int) -> Tensor:
    return torch.full((int(node.meta["val"].shape[-1]),), unit)


def _entries(axes: Sequence[Tensor]) -> int:
    total = 1
    for axis in axes:
        total *= len(axis)
    return total


def _owner(module: str, unit_of: Mapping[str, int]) -> tuple[Tensor, ...]:
    path = _block_of(module, unit_of)
    return (torch.tensor([unit_of[path]]),) if path else ()
