"""Snapshots of a model's attributes, restored after its own code or an export has changed them."""

import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ContainerRule:
    """The functions that read and write the content of a container type, even if a subclass rejects changes.

    Args:
        read: the content as a flat list; a dict gives its keys, then its values.
        write: put such a list back.
    """

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], None]


def _read_items(mapping: Any) -> list[Any]:
    return [*dict.keys(mapping), *dict.values(mapping)]


def _paired_entries(entries: list[Any]) -> Iterator[tuple[Any, Any]]:
    count = len(entries) // 2
    return zip(entries[:count], entries[count:], strict=True)


def _write_items(mapping: Any, entries: list[Any]) -> None:
    dict.clear(mapping)
    dict.update(mapping, _paired_entries(entries))


def _write_ordered_items(mapping: Any, entries: list[Any]) -> None:
    OrderedDict.clear(mapping)
    for key, value in _paired_entries(entries):
        OrderedDict.__setitem__(mapping, key, value)


def _write_list(items: Any, entries: list[Any]) -> None:
    list.__setitem__(items, slice(None), entries)


def _write_set(elements: Any, entries: list[Any]) -> None:
    set.clear(elements)
    set.update(elements, entries)


def _write_deque(items: Any, entries: list[Any]) -> None:
    deque.clear(items)
    deque.extend(items, entries)


def _read_slots(record: Any) -> list[Any]:
    return [getattr(record, field.name, ABSENT) for field in fields(record)]


def _write_slots(record: Any, entries: list[Any]) -> None:
    for field, value in zip(fields(record), entries, strict=True):
        if value is not ABSENT:
            object.__setattr__(record, field.name, value)
        elif hasattr(record, field.name):
            object.__delattr__(record, field.name)


ABSENT = object()
SLOTS = ContainerRule(_read_slots, _write_slots)
# The methods of the built-in base are called, since a subclass may refuse changes. The first base that fits counts.
CONTAINER_RULES: Mapping[type, ContainerRule] = {
    OrderedDict: ContainerRule(_read_items, _write_ordered_items),
    dict: ContainerRule(_read_items, _write_items),
    list: ContainerRule(lambda items: list(list.__iter__(items)), _write_list),
    set: ContainerRule(lambda elements: list(set.__iter__(elements)), _write_set),
    deque: ContainerRule(lambda items: list(deque.__iter__(items)), _write_deque),
}
BASES = tuple(CONTAINER_RULES)


@dataclass(frozen=True)
class Snapshot:
    """A container and its entries, compared by identity."""

    container: Any
    rule: ContainerRule
    entries: list[Any]

    def restore(self) -> None:
        """Write the entries back if the container now holds others."""
        now = self.rule.read(self.container)
        is_same = len(now) == len(self.entries) and all(map(operator.is_, now, self.entries))
        if not is_same:
            self.rule.write(self.container, self.entries)


@dataclass(frozen=True)
class ModelSnapshot:
    """The classes and attributes of all modules of a model, and the content of containers among them.

    Containers are dicts, lists, sets, deques and dataclasses, those inside others included.

    Args:
        modules: the modules.
        classes: their classes.
        snapshots: of containers.
        empty_containers: those of built-in types that held nothing, such as most tables of hooks; their truth values
            show changes.
    """

    modules: tuple[nn.Module, ...]
    classes: tuple[type, ...]
    snapshots: tuple[Snapshot, ...]
    empty_containers: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "ModelSnapshot":
        """Take a snapshot of a model."""
        modules = tuple(model.modules())
        snapshots, empty_containers = _snapshots(modules)
        return cls(modules, tuple(type(module) for module in modules), tuple(snapshots), tuple(empty_containers))

    def restore(self) -> None:
        """Undo all changes since the snapshot; unchanged containers are not written."""
        for module, class_before in zip(self.modules, self.classes, strict=True):
            if type(module) is not class_before:
                module.__class__ = class_before
        for snapshot in self.snapshots:
            snapshot.restore()
        if any(self.empty_containers):
            for container in self.empty_containers:
                container.clear()


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[None]:
    """Restore a model's classes, attributes and containers on leaving."""
    snapshot = ModelSnapshot.of(model)
    try:
        yield
    finally:
        snapshot.restore()


def _snapshots(modules: Sequence[nn.Module]) -> tuple[list[Snapshot], list[Any]]:
    """Take a snapshot of the attributes of each module and of each container within them; list the empty ones apart."""
    snapshots: list[Snapshot] = []
    empty_containers: list[Any] = []
    visited_ids: set[int] = set()
    containers: dict[type, bool] = {}  # few types make up many thousands of entries
    waiting: list[Any] = [vars(module) for module in modules]
    while waiting:
        container = waiting.pop()
        if id(container) in visited_ids:
            continue
        visited_ids.add(id(container))
        for target, rule in _views(container):
            if type(target) in CONTAINER_RULES and not target:
                empty_containers.append(target)
                continue
            entries = rule.read(target)
            snapshots.append(Snapshot(target, rule, entries))
            for kind in set(map(type, entries)) - containers.keys():
                containers[kind] = issubclass(kind, BASES) or is_dataclass(kind)
            waiting += [entry for entry in entries if containers[type(entry)]]
    return snapshots, empty_containers


def _views(container: Any) -> Iterator[tuple[Any, ContainerRule]]:
    """Yield the mutable contents of a container: its entries and its instance attributes."""
    kind = type(container)
    base = kind if kind in CONTAINER_RULES else next((base for base in BASES if issubclass(kind, base)), None)
    if base is not None:
        yield container, CONTAINER_RULES[base]
    if kind.__dictoffset__:
        yield vars(container), CONTAINER_RULES[dict]
    elif base is None:
        yield container, SLOTS
