"""Streams of numbers in a file of compressed weights, and the tensors that they give."""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
import torch
from torch import Tensor

from secateur.errors import StorageError
from secateur.files import Record
from secateur.files.records import Natural
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks
from secateur.surgery.input_form import DTYPES

Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
Numbers = tuple[Natural, str]


class TensorEntry(Record, frozen=True, omit_defaults=True):
    """One tensor; `blocks`, `magnitudes` and `free` where it is written as blocks: their shape and two counts."""

    name: str
    shape: Annotated[list[Natural], msgspec.Meta(max_length=64)]
    dtype: str
    blocks: Annotated[tuple[Side, ...], msgspec.Meta(min_length=2, max_length=8)] | None = None
    magnitudes: Numbers | None = None
    free: Numbers | None = None


class NumberStream:
    """Bytes that are taken in turn."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """Take the next bytes.

        Raises:
            StorageError: there are not so many left.
        """
        if count > len(self.data) - self.at:
            raise StorageError("fewer numbers than tensors")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, count: int, dtype: torch.dtype) -> Tensor:
        """Take the next numbers, whose bytes of equal significance lie together. (count,)"""
        data = self.take(count * dtype.itemsize)
        if not count:
            return torch.zeros(0, dtype=dtype)
        planes = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(dtype.itemsize, count)
        return planes.T.contiguous().flatten().view(dtype)


def read_tensor(entry: TensorEntry, streams: Mapping[str, NumberStream]) -> Tensor:
    """Restore a tensor from its streams.

    Raises:
        StorageError: the labels and the counts of numbers do not belong together.
    """
    shape, kind = tuple(entry.shape), DTYPES[entry.dtype]
    if entry.blocks is None or entry.magnitudes is None or entry.free is None:
        return streams["rest"].numbers(math.prod(shape), kind).view(shape)
    blocks = Blocks(shape, entry.blocks)
    labels = torch.from_numpy(np.frombuffer(streams["labels"].take(blocks.count), np.uint8).astype(np.int64))
    if bool((labels > max(FREE, UNIFIED, PRUNED)).any()):
        raise StorageError(f"a block of {entry.name} is of no known kind")
    real = blocks.cut(torch.ones(shape)) > 0
    values = torch.zeros(real.shape, dtype=kind)
    count = int(real[labels == UNIFIED].sum())
    magnitudes = _take_counted(entry, entry.magnitudes, int((labels == UNIFIED).sum()), streams["magnitudes"])
    packed_signs = np.frombuffer(streams["signs"].take(-(-count // 8)), np.uint8)
    negative = torch.from_numpy(np.unpackbits(packed_signs, count=count).astype(bool))
    shared_values = magnitudes.to(kind)[:, None].expand(-1, real.shape[1])[real[labels == UNIFIED]]
    values[real & (labels == UNIFIED)[:, None]] = torch.where(negative, -shared_values, shared_values)
    free_values = _take_counted(entry, entry.free, int(real[labels == FREE].sum()), streams["free"])
    values[real & (labels == FREE)[:, None]] = free_values.to(kind)
    return blocks.join(values)


def _take_counted(entry: TensorEntry, numbers: Numbers, count: int, stream: NumberStream) -> Tensor:
    """Take a number of entries from a stream.

    Raises:
        StorageError: there are more or fewer, or of a type that such numbers are not written in.
    """
    if numbers[0] != count or numbers[1] not in ("float16", entry.dtype):
        raise StorageError(f"{entry.name} has {numbers[0]} numbers of {numbers[1]}, where its blocks take {count}")
    return stream.numbers(count, DTYPES[numbers[1]])
