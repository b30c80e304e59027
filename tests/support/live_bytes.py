"""Count the bytes of tensors that are alive while code runs."""

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts storages that operators allocate within the context.

    A storage counts from the operator that returns it to the end of its life, however many tensors view it. What an
    operator takes before one has returned it was there before, and never counts. What a kernel allocates and frees
    inside one operator is not seen, and neither are pages of mapped files.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __enter__(self) -> "LiveBytes":
        gc.collect()
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and not leaf.is_meta:
                self._track(leaf, counts=False)
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._track(leaf, counts=True)
        return result

    def _track(self, tensor: Tensor, counts: bool) -> None:
        try:
            storage = tensor.untyped_storage()
            key = storage._cdata
        except (NotImplementedError, RuntimeError):
            return  # fake and functional tensors hold no memory
        if key in self._storages or storage.device.type == "meta" or storage.is_shared():
            return
        size = storage.nbytes() if counts else 0

        def freed(_: Any) -> None:
            if self._storages.pop(key, None) is not None:
                self.now -= size

        self._storages[key] = weakref.ref(storage, freed), size
        self.now += size
        self.peak = max(self.peak, self.now)
