"""The attributes of its modules that a model's code reads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from secateur.utils.process_lock import exclusive

ITSELF, GET = "__dict__", "__getattribute__"
# Torch's own look-up of parameters and submodules goes through all attributes of a module, for whatever name.
LOOKUPS = {getattr(nn.Module, name).__code__ for name in ("__getattr__", "__setattr__", "__delattr__", "__dir__")}


class AttributeReads:
    """The attributes that were read, by module.

    Args:
        model: the model; modules are known by their paths in it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[int, set[str]] = {}
        self._modules = dict(model.named_modules(remove_duplicate=False))

    def note(self, module: Any, name: str) -> None:
        """Record the read of an attribute."""
        self._names.setdefault(id(module), set()).add(name)

    def includes(self, path: str, attribute: str) -> bool:
        """Return whether an attribute of a module was read, or all of them at once (`vars(self)`)."""
        names = self._names.get(id(self._modules[path]), set())
        return attribute in names or ITSELF in names


@contextmanager
def attribute_reads(model: nn.Module) -> Iterator[AttributeReads]:
    """Record every attribute that code reads of a module of the model, within a context."""
    reads = AttributeReads(model)

    def read(module: nn.Module, name: str) -> Any:
        """Record the read, then read."""
        if name != ITSELF or sys._getframe(1).f_code not in LOOKUPS:
            reads.note(module, name)
        return object.__getattribute__(module, name)

    with exclusive():
        setattr(nn.Module, GET, read)
        try:
            yield reads
        finally:
            delattr(nn.Module, GET)
