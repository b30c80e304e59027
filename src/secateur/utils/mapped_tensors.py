"""Tensors in temporary files that are mapped into memory, so that the system can write their pages out."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

ROOM = 1 << 27


class TensorRoom:
    """Room for tensors in memory; those that do not fit are placed in temporary files.

    Args:
        size: the number of bytes; by default 128 MiB.
    """

    def __init__(self, size: int | None = None) -> None:
        self._free = ROOM if size is None else size

    def fit(self, tensor: Tensor) -> Tensor:
        """Return a tensor itself if there is room for it, else a copy in a temporary file, if that is possible."""
        if tensor.nbytes > self._free:
            return mapped_copy(tensor)
        self._free -= tensor.nbytes
        return tensor

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor, in memory if there is room for it, else in a temporary file, if possible."""
        stored_tensor = self.fit(tensor)
        return tensor.clone() if stored_tensor is tensor else stored_tensor

    def release(self, size: int) -> None:
        """Free the room of a tensor that is not in use any more, by its bytes."""
        self._free += size


class SpillingTensors(dict[str, Tensor]):
    """Tensors by name, of which new ones are held in memory up to a number of bytes, and in temporary files beyond.

    Args:
        tensors: the tensors to begin with, which do not count.
        room: the number of bytes; by default 128 MiB.

    Examples:
        >>> table = SpillingTensors({"weight": torch.zeros(3)}, room=0)
        >>> table["weight"] = torch.ones(3)
        >>> table["weight"]
        tensor([1., 1., 1.])
    """

    def __init__(self, tensors: Mapping[str, Tensor], room: int | None = None) -> None:
        super().__init__(tensors)
        self._room = TensorRoom(room)
        self._sizes: dict[str, int] = {}  # of new tensors in memory

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Replace a tensor; the new one may be held as a copy."""
        self._room.release(self._sizes.pop(name, 0))
        stored_tensor = self._room.fit(value)
        if stored_tensor is value:
            self._sizes[name] = value.nbytes
        super().__setitem__(name, stored_tensor)


def mapped_copy(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor whose memory is a temporary file without a name, which ends with the tensor.

    The file is in the folder for temporary files (`TMPDIR`). A tensor is returned as it is if it is not in the memory
    of the processor or of a class of its own, if there is no room for the file, and on a system that does not remove
    files that are in use.

    Args:
        tensor: a tensor without gradients.

    Examples:
        >>> rows = torch.randn(2, 3)
        >>> copy = mapped_copy(rows)
        >>> torch.equal(copy, rows), copy.data_ptr() == rows.data_ptr()
        (True, False)
    """
    if not _is_plain(tensor) or os.name != "posix":
        return tensor
    try:
        storage = _mapped_storage(tensor.numel() * tensor.element_size())
    except (OSError, RuntimeError):  # the folder can't be written to, is full or is of a kind that can't be mapped
        return tensor
    strides = torch.empty_like(tensor, device="meta").stride()
    copy = torch.empty(0, dtype=tensor.dtype).set_(storage, 0, tensor.shape, strides)
    return copy.copy_(tensor)


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is nothing but numbers in the memory of the processor."""
    is_in_memory = tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.numel() > 0
    return is_in_memory and type(tensor) in (Tensor, torch.nn.Parameter) and not tensor.is_quantized


def _mapped_storage(size: int) -> torch.UntypedStorage:
    """Return the memory of a new file that has no name any more.

    Raises:
        OSError: there is no room for the file.
        RuntimeError: it can't be mapped.
    """
    descriptor, path = tempfile.mkstemp(prefix="secateur-")
    try:
        _reserve(descriptor, path, size)
        return cast(torch.UntypedStorage, torch.UntypedStorage.from_file(path, shared=True, nbytes=size))
    finally:
        os.close(descriptor)
        Path(path).unlink()


def _reserve(descriptor: int, path: str, size: int) -> None:
    """Give a file its length, and the room on its disk: a write to mapped pages can't report that there is none.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    if shutil.disk_usage(path).free < 2 * size:
        raise OSError(f"{path} has no room for {size:,} bytes")
    os.truncate(descriptor, size)
