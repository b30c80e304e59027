"""Diagnosis of a failed trial cut: the groups concerned, and the attributes that may hold an old size."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.group import Group
from secateur.coupling.members import AttributeUpdate
from secateur.coupling.network import Network
from secateur.graph.operators import module_path
from secateur.surgery.attribute_reads import AttributeReads
from secateur.surgery.module_attributes import COUNTING_NAMES

MOST_PROPOSALS = 16


def ancestors(path: str | None) -> list[str]:
    """Return the paths of a module and of all modules that contain it, from the inside out."""
    if path is None:
        return []
    names = path.split(".") if path else []
    return [".".join(names[:length]) for length in range(len(names), -1, -1)]


def groups_inside_module(path: str, holder: str) -> bool:
    """Return whether a tensor or module is inside a module."""
    return not holder or path == holder or path.startswith(f"{holder}.")


def candidate_groups(network: Network, path: str) -> list[Group]:
    """Find the groups that own something inside a module, or whose activations are read or reshaped there."""
    return [group for group in network.groups if _touches(network, group, path)]


def _touches(network: Network, group: Group, path: str) -> bool:
    return (
        any(groups_inside_module(member.tensor.rpartition(".")[0], path) for member in group.members)
        or any(groups_inside_module(module, path) for module in network.reshaping[group.name])
        or any(groups_inside_module(module_path(consumer.node), path) for consumer in network.consumers_of(group))
    )


def reshapers(network: Network, group: Group) -> list[str]:
    """Find the modules whose own code writes a count of a group's units or reshapes them, with their ancestors."""
    counting = (module_path(size.node) for size in network.sizes if group.owns(size.units))
    paths = dict.fromkeys((*counting, *network.reshaping[group.name]))
    return list(dict.fromkeys(path for inner in paths for path in (inner, inner.rpartition(".")[0])))


def proposed_updates(
    model: nn.Module, network: Network, path: str, reads: AttributeReads | None = None
) -> Iterator[list[AttributeUpdate]]:
    """Yield new values for a module's own attributes that equal an old size: one by one, then all at once.

    First come those that are taken for counts by their names: they may be none.

    Args:
        model: the dense model.
        network: its network.
        path: the module's.
        reads: the attributes that the code read in the trial that failed; others are left out.
    """
    module = model.get_submodule(path)
    numbers = [number for number in _integer_attributes(module) if reads is None or reads.includes(path, number[0])]
    if not numbers:
        return
    countable_units = _countable_units(network, path)
    current = {update.key: update.units for update in network.attribute_updates}
    single_updates = [
        AttributeUpdate(path, attribute, position, units)
        for attribute, position, value in numbers
        for units in countable_units.get(value, ())
        if (path, attribute, position) not in current or not torch.equal(current[path, attribute, position], units)
    ]
    staying = [
        AttributeUpdate(path, attribute, position, torch.full((value,), -1))
        for attribute, position, value in numbers
        if attribute in COUNTING_NAMES and value in countable_units and (path, attribute, position) not in current
    ]
    for update in (*staying, *islice(single_updates, MOST_PROPOSALS)):
        yield [update]
    first_updates = {(update.attribute, update.position): update for update in reversed(single_updates)}
    if len(first_updates) > 1:
        yield list(first_updates.values())


def _integer_attributes(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """Yield the integers among a module's own attributes; those in tuples and lists with their positions."""
    for name, value in vars(module).items():
        if type(value) is int:
            yield name, None, value
        elif isinstance(value, tuple | list):
            yield from ((name, position, entry) for position, entry in enumerate(value) if type(entry) is int)


def _countable_units(network: Network, path: str) -> dict[int, list[Tensor]]:
    """Map each number to what it could count: the units of a group, or the entries of an axis."""
    by_length: dict[int, dict[tuple[int, ...], Tensor]] = {}
    near_groups = candidate_groups(network, path)
    for group in near_groups:
        vectors = [torch.arange(group.offset, group.offset + group.size)]
        vectors += [member.units for member in group.members]
        for units in vectors:
            by_length.setdefault(len(units), {}).setdefault(tuple(torch.bincount(units + 1).tolist()), units)
    for size in network.sizes:
        if groups_inside_module(module_path(size.node), path) and size.units.shape[1] == 1:
            units = size.units[:, 0]
            by_length.setdefault(len(units), {}).setdefault(tuple(torch.bincount(units + 1).tolist()), units)
    return {length: list(kinds.values()) for length, kinds in by_length.items()}


def same_class_updates(model: nn.Module, network: Network, updates: list[AttributeUpdate]) -> Iterator[AttributeUpdate]:
    """Yield the same updates for other modules of the class whose units have the same role."""
    for update in updates:
        for path in same_class_modules(model, update.path):
            value = _attribute_value(model.get_submodule(path), update)
            countable_units = _countable_units(network, path).get(value, []) if value is not None else []
            same_role = [
                units
                for units in countable_units
                if _roles(network, path, units) == _roles(network, update.path, update.units)
            ]
            if len(same_role) == 1:
                yield AttributeUpdate(path, update.attribute, update.position, same_role[0])


def _attribute_value(module: nn.Module, update: AttributeUpdate) -> Any:
    value = vars(module).get(update.attribute)
    if update.position is None:
        return value if type(value) is int else None
    return value[update.position] if isinstance(value, tuple | list) and len(value) > update.position else None


def same_class_groups(model: nn.Module, network: Network, path: str, group: Group) -> list[Group]:
    """Return the groups that have, in other modules of the class, the role that this group has in one of them."""
    axes = owned_axes(group, path)
    if not axes or not path:
        return []
    return [
        other
        for other_path in same_class_modules(model, path)
        for other in network.groups
        if other is not group and other.size == group.size and owned_axes(other, other_path) == axes
    ]


def _roles(network: Network, path: str, units: Tensor) -> frozenset[tuple[str, int]]:
    """Return the axes that the groups of these units own inside a module."""
    return frozenset().union(*(owned_axes(group, path) for group in network.groups if group.owns(units)))


def owned_axes(group: Group, path: str) -> frozenset[tuple[str, int]]:
    """Return the axes inside a module that a group owns, by their names there."""
    prefix = f"{path}." if path else ""
    inner_members = (member for member in group.members if member.tensor.startswith(prefix))
    return frozenset((member.tensor.removeprefix(prefix), member.axis) for member in inner_members)


def same_class_modules(model: nn.Module, path: str) -> list[str]:
    """Return the other modules of the same class with the same switches."""
    module = model.get_submodule(path)
    switches = _switches(module)
    return [
        other
        for other, candidate in model.named_modules()
        if other != path and type(candidate) is type(module) and _switches(candidate) == switches
    ]


def _switches(module: nn.Module) -> Mapping[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | str) and name != "training"}
