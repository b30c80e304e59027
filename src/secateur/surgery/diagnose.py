"""Where a model's code failed on a cut copy: which groups are concerned, and which attributes may hold an old size."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.network import AttributeUpdate, Group, Network
from secateur.graph.operators import module_path
from secateur.surgery.attribute_reads import AttributeReads
from secateur.surgery.module_attributes import COUNTING_NAMES

MOST_PROPOSALS = 16


def ancestors(model: nn.Module, place: str | None) -> list[str]:
    """The paths of a module and of all that hold it, from the inside out."""
    if place is None:
        return []
    parts = place.split(".") if place else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def groups_inside_module(path: str, holder: str) -> bool:
    return not holder or path == holder or path.startswith(f"{holder}.")


def candidate_groups(network: Network, path: str) -> list[Group]:
    """The groups that own, or whose activations are read or reshaped by, something inside a module."""
    return [group for group in network.groups if _touches(network, group, path)]


def _touches(network: Network, group: Group, path: str) -> bool:
    return (
        any(groups_inside_module(member.tensor.rpartition(".")[0], path) for member in group.members)
        or any(groups_inside_module(place, path) for place in network.reshaping[group.name])
        or any(groups_inside_module(module_path(consumer.node), path) for consumer in network.readers_of(group))
    )


def reshapers(network: Network, group: Group) -> list[str]:
    """The modules whose own code writes a count of a group's units or reshapes them, each with what holds it."""
    counting = (module_path(size.node) for size in network.sizes if group.owns(size.units))
    paths = dict.fromkeys((*counting, *network.reshaping[group.name]))
    return list(dict.fromkeys(path for inner in paths for path in (inner, inner.rpartition(".")[0])))


def proposals(
    model: nn.Module, network: Network, path: str, reads: AttributeReads | None = None
) -> Iterator[list[AttributeUpdate]]:
    """New values for a module's own attributes that equal an old size: one by one, then all at once.

    First come those that are taken for counts by their names: they may be none.

    Args:
        model: the dense model.
        network: its network.
        path: the module's.
        reads: the attributes that the code read in the trial that failed; others are left out.
    """
    module = model.get_submodule(path)
    numbers = [number for number in _numbers(module) if reads is None or reads.includes(path, number[0])]
    if not numbers:
        return
    counted = _counted(network, path)
    held = {mend.key: mend.units for mend in network.mends}
    single = [
        AttributeUpdate(path, attribute, position, units)
        for attribute, position, value in numbers
        for units in counted.get(value, ())
        if (path, attribute, position) not in held or not torch.equal(held[path, attribute, position], units)
    ]
    staying = [
        AttributeUpdate(path, attribute, position, torch.full((value,), -1))
        for attribute, position, value in numbers
        if attribute in COUNTING_NAMES and value in counted and (path, attribute, position) not in held
    ]
    for mend in (*staying, *islice(single, MOST_PROPOSALS)):
        yield [mend]
    first = {(mend.attribute, mend.position): mend for mend in reversed(single)}
    if len(first) > 1:
        yield list(first.values())


def _numbers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """The integers among a module's own attributes, those in tuples and lists with their places."""
    for name, value in vars(module).items():
        if type(value) is int:
            yield name, None, value
        elif isinstance(value, tuple | list):
            yield from ((name, place, part) for place, part in enumerate(value) if type(part) is int)


def _counted(network: Network, path: str) -> dict[int, list[Tensor]]:
    """What a number could count: the units of a group, or the entries of an axis, by their number."""
    found: dict[int, dict[tuple[int, ...], Tensor]] = {}
    near = candidate_groups(network, path)
    for group in near:
        vectors = [torch.arange(group.offset, group.offset + group.size)]
        vectors += [member.units for member in group.members]
        for units in vectors:
            found.setdefault(len(units), {}).setdefault(tuple(torch.bincount(units + 1).tolist()), units)
    for size in network.sizes:
        if groups_inside_module(module_path(size.node), path) and size.units.shape[1] == 1:
            units = size.units[:, 0]
            found.setdefault(len(units), {}).setdefault(tuple(torch.bincount(units + 1).tolist()), units)
    return {length: list(kinds.values()) for length, kinds in found.items()}


def same_class_updates(model: nn.Module, network: Network, mends: list[AttributeUpdate]) -> Iterator[AttributeUpdate]:
    """The same mends for the other modules of the same class, as far as their units play the same part."""
    for mend in mends:
        for path in same_class_modules(model, mend.path):
            value = _held(model.get_submodule(path), mend)
            counted = _counted(network, path).get(value, []) if value is not None else []
            alike = [units for units in counted if _part(network, path, units) == _part(network, mend.path, mend.units)]
            if len(alike) == 1:
                yield AttributeUpdate(path, mend.attribute, mend.position, alike[0])


def _held(module: nn.Module, mend: AttributeUpdate) -> Any:
    value = vars(module).get(mend.attribute)
    if mend.position is None:
        return value if type(value) is int else None
    return value[mend.position] if isinstance(value, tuple | list) and len(value) > mend.position else None


def same_class_groups(model: nn.Module, network: Network, path: str, group: Group) -> list[Group]:
    """Groups that play, in the other modules of the same class, the part that this one plays in one of them."""
    part = owned(group, path)
    if not part or not path:
        return []
    return [
        other
        for place in same_class_modules(model, path)
        for other in network.groups
        if other is not group and other.size == group.size and owned(other, place) == part
    ]


def _part(network: Network, path: str, units: Tensor) -> frozenset[tuple[str, int]]:
    """What the groups of these units own inside a module."""
    return frozenset().union(*(owned(group, path) for group in network.groups if group.owns(units)))


def owned(group: Group, path: str) -> frozenset[tuple[str, int]]:
    """The axes inside a module that a group owns, by their names there."""
    prefix = f"{path}." if path else ""
    held = (member for member in group.members if member.tensor.startswith(prefix))
    return frozenset((member.tensor.removeprefix(prefix), member.axis) for member in held)


def same_class_modules(model: nn.Module, path: str) -> list[str]:
    """The other modules of the same class and the same switches."""
    module = model.get_submodule(path)
    switches = _switches(module)
    return [
        other
        for other, found in model.named_modules()
        if other != path and type(found) is type(module) and _switches(found) == switches
    ]


def _switches(module: nn.Module) -> Mapping[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | str) and name != "training"}
