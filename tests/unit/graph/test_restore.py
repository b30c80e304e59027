"""Attributes that a model's own code replaces or changes are as they were afterwards, whatever their class refuses."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.graph.attribute_snapshots import attributes_restored


def refuse(*_: Any, **__: Any) -> None:
    raise TypeError("this configuration is frozen")


class FrozenDict(dict[str, Any]):
    update = __setitem__ = __delitem__ = clear = pop = refuse  # type: ignore[assignment]


class FrozenOrderedDict(OrderedDict[str, Any]):
    """Like the configurations of diffusers: filled once, each entry an attribute as well."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(**entries)
        vars(self).update(entries)
        vars(self)["frozen"] = True

    def __setitem__(self, key: str, value: Any) -> None:
        if vars(self).get("frozen"):
            refuse()
        super().__setitem__(key, value)

    __delitem__ = update = pop = __setattr__ = refuse  # type: ignore[assignment]


class AttributeDict(dict[str, Any]):
    __getattr__ = dict.__getitem__

    def __setattr__(self, name: str, value: Any) -> None:
        refuse()


@dataclass
class Settings:
    hidden: int = 8
    names: list[str] = field(default_factory=lambda: ["a", "b"])


@dataclass(frozen=True)
class FrozenSettings:
    hidden: int = 8


@dataclass(slots=True)
class SlotSettings:
    hidden: int = 8


@dataclass
class Record(OrderedDict[str, Any]):
    hidden: int = 8


class SortedList(list[int]):
    append = extend = __setitem__ = refuse  # type: ignore[assignment]


CONFIGS: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"hidden": 8, "inner": {"depth": [1, 2]}},
    "frozen dict": lambda: FrozenDict(hidden=8),
    "frozen ordered dict": lambda: FrozenOrderedDict(hidden=8, depth=2),
    "attribute dict": lambda: AttributeDict(hidden=8),
    "default dict": lambda: defaultdict(list, hidden=[8]),
    "counter": lambda: Counter("abc"),
    "list": lambda: SortedList([8, 1]),
    "set": lambda: {8, 9},
    "deque": lambda: deque([1, 2], maxlen=4),
    "dataclass": Settings,
    "frozen dataclass": FrozenSettings,
    "slots": SlotSettings,
    "dataclass and dict": lambda: Record(hidden=9),
}


class Configured(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def content(config: Any) -> Any:
    """Return the content of a configuration in a form that is compared by value."""
    entries = list(config.items()) if isinstance(config, dict) else list(config) if hasattr(config, "__iter__") else []
    return type(config), entries, repr(config), repr(getattr(config, "__dict__", None))


def damage(config: Any) -> None:
    """Change a configuration in every way that its built-in base allows."""
    if isinstance(config, OrderedDict):
        OrderedDict.clear(config)
    elif isinstance(config, dict):
        dict.__setitem__(config, "new", 1)
        for value in config.values():
            if isinstance(value, dict):
                value["depth"].append(3)
    elif isinstance(config, list):
        list.append(config, 7)
    elif isinstance(config, set):
        config.add(1)
    elif isinstance(config, deque):
        config.append(3)
    if hasattr(config, "hidden") and not isinstance(config, dict):
        object.__setattr__(config, "hidden", 1)
    if type(config).__dictoffset__:
        vars(config)["other"] = 1


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_are_left_alone_and_restored(name: str) -> None:
    config = CONFIGS[name]()
    model = Configured(config)
    before = content(config)
    result = sc.prune(model, torch.randn(16, 5), {"units": 0.5}, by="l1", repair=None, progress=False)
    assert model.config is config
    assert content(config) == before
    assert type(result.model.config) is type(config)
    with attributes_restored(model):
        damage(config)
        model.config = None
        model.other = 1
        assert content(config) != before
    assert model.config is config
    assert not hasattr(model, "other")
    assert content(config) == before


def test_what_was_not_changed_is_not_written_to() -> None:
    config = CONFIGS["list"]()
    model = Configured(config)
    snapshots = []
    with attributes_restored(model):
        snapshots.append(model.a.weight)
    assert model.a.weight is snapshots[0]
    assert model.config is config


def test_containers_that_held_nothing_are_empty_again() -> None:
    """A module's tables of hooks, and lists that its code appends to."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    notes: list[Any] = []
    vars(model[1])["notes"] = notes
    with attributes_restored(model):
        notes.append(1)
        model[0].register_forward_hook(refuse)
        vars(model[0])["seen"] = {}
    assert model[1].notes is notes
    assert notes == []
    assert not model[0]._forward_hooks
    assert not hasattr(model[0], "seen")


def test_classes_of_modules_are_restored() -> None:
    model = Configured(None)
    with attributes_restored(model):
        model.a.__class__ = nn.Identity
    assert type(model.a) is nn.Linear


def test_attributes_that_can_not_be_copied_are_shared() -> None:
    model = Configured(Lock())
    small = sc.prune(model, torch.randn(16, 5), {"units": 0.5}, by="l1", repair=None, progress=False).model
    assert small.config is model.config
    assert small.a.weight.shape == (4, 5)


class Uncopyable(list[Any]):
    __deepcopy__ = refuse


def test_modules_in_an_attribute_that_can_not_be_copied_are_not_shared() -> None:
    model = Configured(None)
    model.config = Uncopyable([model.a])
    with pytest.raises(sc.SecateurError, match="Configured can't be copied: its attribute config raises TypeError"):
        sc.prune(model, torch.randn(16, 5), {"units": 0.5}, by="l1", repair=None, progress=False)
