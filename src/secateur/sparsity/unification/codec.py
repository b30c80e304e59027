"""A network on disk at its real compressed size, read back bit for bit.

Weights that fall into blocks are written as labels, one magnitude and the signs of each unified block, and the free
weights; everything else as it is. Each kind of number is a stream of its own, its bytes sorted by their significance,
coded by LZMA where that makes it smaller. The file ends with the SHA-256 of all before it.
"""

import hashlib
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import NameMatchError, StorageError
from secateur.files import Writer, write_whole
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, found_labels, signs

MAGIC = b"secateur blocks 1\n"
STREAMS = ("labels", "magnitudes", "signs", "free", "rest")
DIGEST = 32


@dataclass(frozen=True)
class Compressed:
    """What a file holds.

    Args:
        weights: numbers in the network, parameters and buffers.
        pruned, unified, free: how many weights lie in blocks of each kind.
        dense_bytes: what they take as they are.
        bytes: the size of the file.
    """

    weights: int
    pruned: int
    unified: int
    free: int
    dense_bytes: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.dense_bytes:,} -> {self.bytes:,} bytes ({self.dense_bytes / self.bytes:.1f}x smaller): "
            f"{self.pruned:,} weights pruned, {self.unified:,} unified, {self.free:,} free"
        )


def save_compressed(model: nn.Module, path: str | Path, blocks: Mapping[str, tuple[int, int]]) -> Compressed:
    """Write a model's parameters and buffers at their compressed size.

    What is written is what the model holds: blocks are found by looking at the weights. Numbers that 16 bits hold
    exactly take no more; `halved` rounds a model to such.

    Args:
        model: the model.
        path: the file.
        blocks: the shape of blocks (filters, inputs), by the name of the weight; other tensors are written whole.

    Raises:
        NameMatchError: the model has no weight of a name.
        StorageError: it can't be written; an older file of that name is as it was.

    Example:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(64, 64)
        >>> _ = model.weight.data.copy_(model.weight.sign() * 0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = save_compressed(model, f"{folder}/model.blocks", {"weight": (1, 8)})
        ...     again = load_compressed(torch.nn.Linear(64, 64), f"{folder}/model.blocks")
        >>> torch.equal(again.weight, model.weight), found.unified
        (True, 4096)
    """
    unknown = [name for name in blocks if name not in model.state_dict()]
    if unknown:
        known = ", ".join(name for name, tensor in model.state_dict().items() if tensor.dim() > 1)
        raise NameMatchError(f"blocks= names {unknown[0]!r}, which is no weight of the model; there are {known}")
    parts: dict[str, list[bytes]] = {name: [] for name in STREAMS}
    entries, counts = [], {FREE: 0, UNIFIED: 0, PRUNED: 0}
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        shape = blocks.get(name)
        entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)[6:]}
        if shape is None:
            parts["rest"].append(_as_bytes(tensor))
        else:
            entry |= _write_blocks(tensor, Blocks(tuple(tensor.shape), shape), parts, counts)
        entries.append(entry)
    coded = {name: _coded(b"".join(chunks)) for name, chunks in parts.items()}
    header = {"tensors": entries, "streams": [[name, how, len(data)] for name, (how, data) in coded.items()]}
    text = json.dumps(header, separators=(",", ":")).encode()
    packed = lzma.compress(text, preset=9)
    body = MAGIC + len(packed).to_bytes(8, "little") + packed + b"".join(data for _, data in coded.values())
    body += hashlib.sha256(body).digest()
    write_whole({Path(path): _bytes_writer(body)})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    total = sum(tensor.numel() for tensor in tensors.values())
    return Compressed(total, counts[PRUNED], counts[UNIFIED], counts[FREE], size, len(body))


def load_compressed(model: nn.Module, path: str | Path) -> nn.Module:
    """Give a model the parameters and buffers of a file, bit for bit those that were saved.

    Args:
        model: of the class and shapes that were saved; it is changed in place.
        path: the file.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another network; the model is as it was.
    """
    tensors = _read(Path(path))
    held = model.state_dict()
    wrong = next((name for name in {**held, **tensors} if _differs(held.get(name), tensors.get(name))), None)
    if wrong is not None:
        raise StorageError(
            f"{path} is of another network: {wrong} is not the same in both; give the class that was saved"
        )
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(tensors[name])
    return model


def halved(model: nn.Module) -> nn.Module:
    """Round all floating-point numbers of a model, in place, to such as 16 bits hold; it stays in its own type."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))
    return model


def _write_blocks(
    tensor: Tensor, blocks: Blocks, parts: dict[str, list[bytes]], counts: dict[int, int]
) -> dict[str, Any]:
    values, labels = blocks.cut(tensor.detach().cpu()), found_labels(blocks, tensor)
    real = blocks.cut(torch.ones(tensor.shape)) > 0
    for kind in counts:
        counts[kind] += int(real[labels == kind].sum())
    magnitudes = values[labels == UNIFIED].abs().amax(1)
    negative = signs(values[labels == UNIFIED])[real[labels == UNIFIED]] < 0
    free = values[labels == FREE][real[labels == FREE]]
    parts["labels"].append(labels.numpy().astype(np.uint8).tobytes())
    parts["signs"].append(np.packbits(negative.numpy()).tobytes())
    entry: dict[str, Any] = {"blocks": list(blocks.shape)}
    for name, numbers in (("magnitudes", magnitudes), ("free", free)):
        narrow = bool((numbers.half().to(numbers.dtype) == numbers).all()) and numbers.element_size() > 2
        entry[name] = [numbers.numel(), "float16" if narrow else str(numbers.dtype)[6:]]
        parts[name].append(_as_bytes(numbers.half() if narrow else numbers))
    return entry


def _as_bytes(tensor: Tensor) -> bytes:
    """The tensor's bytes, those of equal significance together: they are alike."""
    flat = tensor.detach().cpu().contiguous().flatten()
    width = flat.element_size()
    return flat.view(torch.uint8).view(-1, width).T.contiguous().numpy().tobytes() if flat.numel() else b""


def _from_bytes(data: bytes, count: int, dtype: str) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    width = torch.zeros((), dtype=kind).element_size()
    if not count:
        return torch.zeros(0, dtype=kind)
    planes = torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(width, count)
    return planes.T.contiguous().flatten().view(kind)


def _coded(data: bytes) -> tuple[str, bytes]:
    packed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    return ("lzma", packed) if len(packed) < len(data) else ("raw", data)


def _bytes_writer(data: bytes) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        StorageError: the file is missing, cut off or altered.
    """
    try:
        raw = path.read_bytes()
    except OSError as failure:
        raise StorageError(f"{path} can't be read: {failure}") from failure
    if not raw.startswith(MAGIC):
        raise StorageError(f"{path} is not a file of blocks that Secateur wrote")
    if hashlib.sha256(raw[:-DIGEST]).digest() != raw[-DIGEST:]:
        raise StorageError(f"{path} was cut off or altered: its checksum is wrong; copy it again")
    at = len(MAGIC) + 8
    length = int.from_bytes(raw[len(MAGIC) : at], "little")
    header = json.loads(lzma.decompress(raw[at : at + length]))
    at += length
    streams: dict[str, _Stream] = {}
    for name, how, size in header["streams"]:
        data = raw[at : at + size]
        streams[name] = _Stream(lzma.decompress(data) if how == "lzma" else data)
        at += size
    return {entry["name"]: _tensor(entry, streams) for entry in header["tensors"]}


class _Stream:
    """Bytes that are taken in turn."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, count: int, dtype: str) -> Tensor:
        width = torch.zeros((), dtype=getattr(torch, dtype)).element_size()
        return _from_bytes(self.take(count * width), count, dtype)


def _tensor(entry: Mapping[str, Any], streams: Mapping[str, _Stream]) -> Tensor:
    shape = tuple(entry["shape"])
    if "blocks" not in entry:
        return streams["rest"].numbers(int(np.prod(shape, dtype=np.int64)), entry["dtype"]).view(shape)
    high, wide = entry["blocks"]
    blocks = Blocks(shape, (high, wide))
    labels = torch.from_numpy(np.frombuffer(streams["labels"].take(blocks.count), np.uint8).astype(np.int64))
    real = blocks.cut(torch.ones(shape)) > 0
    kind = getattr(torch, entry["dtype"])
    values = torch.zeros(real.shape, dtype=kind)
    magnitudes = streams["magnitudes"].numbers(*entry["magnitudes"]).to(kind)
    count = int(real[labels == UNIFIED].sum())
    packed = np.frombuffer(streams["signs"].take(-(-count // 8)), np.uint8)
    negative = torch.from_numpy(np.unpackbits(packed, count=count).astype(bool))
    shared = magnitudes[:, None].expand(-1, real.shape[1])[real[labels == UNIFIED]]
    values[real & (labels == UNIFIED)[:, None]] = torch.where(negative, -shared, shared)
    values[real & (labels == FREE)[:, None]] = streams["free"].numbers(*entry["free"]).to(kind)
    return blocks.join(values)


def _differs(one: Tensor | None, other: Tensor | None) -> bool:
    return one is None or other is None or one.shape != other.shape or one.dtype != other.dtype
