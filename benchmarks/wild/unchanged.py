"""Snapshots of a model, an example and the random generators, compared bit for bit and object for object."""

import hashlib
import random
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OPAQUE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)

Entry = tuple[Any, ...]


class Snapshot:
    """Entries of all objects that can be reached from the attributes of a model and an example, by their paths.

    References to the objects are kept, so that no identity is given to another object in the meantime.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        self._objects: list[Any] = []
        self.entries = self._record(model, example)

    def changes(self, model: nn.Module, example: Any) -> list[str]:
        """Return the paths of entries that are missing, new, another object, or of other bits."""
        now = Snapshot(model, example).entries
        return sorted(path for path in self.entries.keys() | now.keys() if self.entries.get(path) != now.get(path))

    def _record(self, model: nn.Module, example: Any) -> dict[str, Entry]:
        return {
            **dict(self._walk(model, "model", set())),
            **dict(self._walk(example, "example", set())),
            "random": (hash(random.getstate()),),
            "numpy.random": (repr(np.random.get_state()),),
            "torch.random": (_bits(torch.get_rng_state()),),
        }

    def _walk(self, value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Entry]]:
        if isinstance(value, PLAIN):
            yield path, (type(value), repr(value))
            return
        yield path, (type(value), id(value), *_entry_content(value))
        if id(value) in seen or isinstance(value, OPAQUE):
            return
        seen.add(id(value))
        self._objects.append(value)
        for name, child in _children(value):
            yield from self._walk(child, f"{path}.{name}", seen)


def _entry_content(value: Any) -> Entry:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.requires_grad, _bits(value)
    if isinstance(value, Mapping):
        return (tuple(map(repr, value)),)
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    return (len(value),) if isinstance(value, list | tuple) else ()


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield from () if value.grad is None else [("grad", value.grad)]
        return
    if isinstance(value, Mapping):
        yield from ((str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
    yield from getattr(value, "__dict__", {}).items()


def _bits(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").hexdigest()
