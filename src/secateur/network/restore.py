"""Attributes of a model that its own code, or an export, replaces or changes, as they were before."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ContainerRule:
    """How the content of a container is read and written, whatever its subclass refuses.

    Args:
        read: the content as a flat list; a dict gives keys and values in turn.
        write: put such a list back.
    """

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], None]


def _read_items(mapping: Any) -> list[Any]:
    return [entry for item in dict.items(mapping) for entry in item]


def _write_items(mapping: Any, entries: list[Any]) -> None:
    dict.clear(mapping)
    dict.update(mapping, zip(entries[::2], entries[1::2], strict=True))


def _write_ordered_items(mapping: Any, entries: list[Any]) -> None:
    OrderedDict.clear(mapping)
    for key, value in zip(entries[::2], entries[1::2], strict=True):
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
    """A container and what it held, each entry by identity."""

    container: Any
    rule: ContainerRule
    entries: list[Any]

    def restore(self) -> None:
        """Write the entries back where the container holds others now."""
        now = self.rule.read(self.container)
        same = len(now) == len(self.entries) and all(a is b for a, b in zip(now, self.entries, strict=True))
        if not same:
            self.rule.write(self.container, self.entries)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Restore on leaving the classes and attributes of all modules, and the content of containers among them.

    Containers are dicts, lists, sets, deques and dataclasses, those inside others included. What was not changed is
    not written to.
    """
    modules = list(model.modules())
    classes = [type(module) for module in modules]
    snapshots = _snapshots(modules)
    try:
        yield
    finally:
        for module, before in zip(modules, classes, strict=True):
            if type(module) is not before:
                module.__class__ = before
        for snapshot in snapshots:
            snapshot.restore()


def _snapshots(modules: list[nn.Module]) -> list[Snapshot]:
    """One for the attributes of each module and of each container that they hold, directly or inside another."""
    snapshots: list[Snapshot] = []
    seen: set[int] = set()
    waiting: list[Any] = [vars(module) for module in modules]
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        for target, rule in _views(container):
            entries = rule.read(target)
            snapshots.append(Snapshot(target, rule, entries))
            waiting += [entry for entry in entries if isinstance(entry, BASES) or _is_record(entry)]
    return snapshots


def _views(container: Any) -> Iterator[tuple[Any, ContainerRule]]:
    """The parts of a container that can change: its content, and the attributes of its instance."""
    base = next((kind for kind in BASES if isinstance(container, kind)), None)
    if base is not None:
        yield container, CONTAINER_RULES[base]
    if type(container).__dictoffset__:
        yield vars(container), CONTAINER_RULES[dict]
    elif base is None:
        yield container, SLOTS


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)
