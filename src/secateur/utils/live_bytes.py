"""Measure how many bytes of new tensors a piece of code holds at one time."""

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Count the storages that operators allocate within the context, until they are freed.

    Views count once, with the storage that they share; views of tensors that were there before count nothing. What a
    kernel allocates and frees inside one operator is not seen.

    Attributes:
        alive: bytes that are alive now.
        peak: the most that were alive at one time.

    Examples:
        >>> with LiveBytes() as live:
        ...     x = torch.zeros(1000)
        ...     y = (x + 1).sum()
        >>> live.peak >= 8000, live.alive < 8000
        (True, True)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._storages: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known_keys = {_storage_key(tensor) for tensor in _tensors_in((args, kwargs))}
        for tensor in _tensors_in(result):
            if _storage_key(tensor) not in known_keys:
                self._track(tensor)
        return result

    def _track(self, tensor: Tensor) -> None:
        key = _storage_key(tensor)
        if key is None or key in self._storages:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()

        def freed(_: Any) -> None:
            if self._storages.pop(key, None) is not None:
                self.alive -= size

        self._storages[key] = weakref.ref(storage, freed), size
        self.alive += size
        self.peak = max(self.peak, self.alive)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or results of an operator.

    These are lists, tuples and dictionaries only: a walk over all kinds of trees took longer than small operators.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors_in(entry)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _storage_key(tensor: Tensor) -> int | None:
    """Return a key of a tensor's storage, or None if it has no storage."""
    if tensor.layout != torch.strided:
        return None
    key: int = tensor.untyped_storage()._cdata
    return key


def peak_bytes(*runs: Callable[[], Any]) -> int:
    """Measure the peak of bytes of new tensors that are alive while functions run, one after the other.

    The garbage collector is disabled meanwhile, because its schedule would change the result.
    """
    live, collects = LiveBytes(), gc.isenabled()
    gc.disable()
    try:
        with live:
            for run in runs:
                run()
    finally:
        if collects:
            gc.enable()
    return live.peak
