"""The reader of compressed networks: every length is known from the model before any memory is taken for it."""

import hashlib
import lzma
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from torch import Tensor

from secateur.errors import StorageError
from secateur.files import Record, read_bytes
from secateur.files.records import Natural
from secateur.sparsity.unification.blocks import Blocks
from secateur.sparsity.unification.compressed_streams import NumberStream, TensorEntry, read_tensor
from secateur.surgery.input_form import DTYPES

MAGIC = b"secateur blocks 1\n"
STREAMS = ("labels", "magnitudes", "signs", "free", "rest")
DIGEST = 32
MOST_HEADER = 1 << 26  # bytes of the header, unpacked
MOST_FILE = 1 << 36
MEMORY = 1 << 27  # bytes that LZMA may use to unpack: its largest dictionary takes half of it
MOST_PADDING = 1 << 20  # entries that blocks may have beyond 16 times those of the weight


class Header(Record, frozen=True):
    """The tensors in their order, and the name, the coding and the length of each stream."""

    tensors: list[TensorEntry]
    streams: list[tuple[str, Literal["lzma", "raw"], Natural]]


def check_blocks(blocks: Blocks, name: str) -> None:
    """Check the blocks of a weight.

    Raises:
        StorageError: the blocks have other axes than the weight, or are so much larger that filling them up takes too
            much memory.
    """
    if len(blocks.shape) not in (2, len(blocks.weight)):
        raise StorageError(f"{name} has {len(blocks.weight)} axes, and its blocks {len(blocks.shape)} sides")
    if blocks.count * math.prod(blocks.shape) > 16 * math.prod(blocks.weight) + MOST_PADDING:
        raise StorageError(f"blocks of {' x '.join(map(str, blocks.shape))} are too large for {name}")


def read_compressed(path: Path, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Args:
        path: the file.
        model: the tensors of the model that it is for.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another network.
    """
    raw = read_bytes(path, MOST_FILE)
    if not raw.startswith(MAGIC):
        raise StorageError(f"{path} is not a file of blocks that Secateur wrote")
    if hashlib.sha256(raw[:-DIGEST]).digest() != raw[-DIGEST:]:
        raise StorageError(f"{path} was cut off or altered: its checksum is wrong; copy it again")
    try:
        header, body = _header(raw[len(MAGIC) : -DIGEST])
        _check_same_model(header, model)
        streams = _streams(header, body, sum(tensor.numel() * tensor.element_size() for tensor in model.values()))
        tensors = {entry.name: read_tensor(entry, streams) for entry in header.tensors}
        if any(stream.at != len(stream.data) for stream in streams.values()):
            raise StorageError("more numbers than tensors")
    except (msgspec.MsgspecError, lzma.LZMAError, UnicodeError, RecursionError, ValueError, StorageError) as failure:
        raise StorageError(f"{path} can't be loaded: {failure}") from failure
    return tensors


def _header(content: bytes) -> tuple[Header, bytes]:
    """Return the header, and the bytes behind it."""
    length = int.from_bytes(content[:8], "little")
    if length > len(content) - 8:
        raise StorageError("its header is longer than the file")
    text = _unpack(content[8 : 8 + length], MOST_HEADER)
    return msgspec.json.decode(text, type=Header), content[8 + length :]


def _unpack(packed_data: bytes, most_bytes: int) -> bytes:
    """Return the content that LZMA packed, if it is no longer than a limit.

    Raises:
        StorageError: it is longer, or goes on after its end.
    """
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    content = decoder.decompress(packed_data, most_bytes + 1)
    if len(content) > most_bytes or not decoder.eof or decoder.unused_data:
        raise StorageError(f"a packed part does not end within {most_bytes:,} bytes")
    return content


def _check_same_model(header: Header, model: Mapping[str, Tensor]) -> None:
    """Check that the tensors are those of the model.

    Raises:
        StorageError: the tensors are not those of the model.
    """
    names = [entry.name for entry in header.tensors]
    if len(set(names)) != len(names):
        raise StorageError("a tensor stands in it twice")
    entries = {entry.name: entry for entry in header.tensors}
    for name in [*model, *names]:
        entry, tensor = entries.get(name), model.get(name)
        is_same = entry is not None and tensor is not None and tuple(entry.shape) == tuple(tensor.shape)
        if entry is None or tensor is None or not is_same or DTYPES.get(entry.dtype) != tensor.dtype:
            raise StorageError(f"it is of another network: {name} differs; give a model of the class that was saved")
        if (entry.blocks is None) != (entry.magnitudes is None) or (entry.blocks is None) != (entry.free is None):
            raise StorageError(f"{name} is written neither as it is nor as blocks")
        if entry.blocks is not None:
            if not tensor.dim():
                raise StorageError(f"{name} is a single number, which has no blocks")
            check_blocks(Blocks(tuple(entry.shape), entry.blocks), name)


def _streams(header: Header, body: bytes, size: int) -> dict[str, NumberStream]:
    """Split the content of a file into its streams.

    Args:
        header: of the file.
        body: all streams.
        size: bytes of the model's tensors.

    Raises:
        StorageError: the streams are not those that a file has, or unpack to more than the model takes.
    """
    if tuple(name for name, _, _ in header.streams) != STREAMS:
        raise StorageError("it has other streams")
    if sum(length for _, _, length in header.streams) != len(body):
        raise StorageError("its streams are longer or shorter than the file")
    blocks = sum(Blocks(tuple(entry.shape), entry.blocks).count for entry in header.tensors if entry.blocks)
    streams, at = {}, 0
    for name, coding, length in header.streams:
        data = body[at : at + length]
        streams[name] = NumberStream(_unpack(data, size + blocks) if coding == "lzma" else data)
        at += length
    return streams
