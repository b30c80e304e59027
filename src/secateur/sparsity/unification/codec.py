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

from secateur.entry import entry_point
from secateur.errors import NameMatchError
from secateur.files import bytes_writer, write_file
from secateur.options.call_checks import checked_calls
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, existing_labels, signs
from secateur.sparsity.unification.compressed_file import MAGIC, STREAMS, check_blocks, read_compressed


@checked_calls
@dataclass(frozen=True)
class Compressed:
    """The contents of a file.

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


@entry_point
def save_compressed(model: nn.Module, path: str | Path, blocks: Mapping[str, tuple[int, ...]]) -> Compressed:
    """Write a model's parameters and buffers at their compressed size.

    What is written is what the model holds: blocks are found by looking at the weights. Numbers that 16 bits hold
    exactly take no more; `halved` rounds a model to such.

    Args:
        model: the model.
        path: the file.
        blocks: the shape of blocks, as `Blocks` has it, by the name of the weight; other tensors are written whole.

    Raises:
        NameMatchError: the model has no weight of a name.
        StorageError: it can't be written; an older file of that name is as it was.

    Examples:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(64, 64)
        >>> _ = model.weight.data.copy_(model.weight.sign() * 0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     counts = save_compressed(model, f"{folder}/model.blocks", {"weight": (1, 8)})
        ...     again = load_compressed(torch.nn.Linear(64, 64), f"{folder}/model.blocks")
        >>> torch.equal(again.weight, model.weight), counts.unified
        (True, 4096)
    """
    content, counts = compressed_form(model, blocks)
    write_file(Path(path), bytes_writer(content))
    return counts


def compressed_form(model: nn.Module, blocks: Mapping[str, tuple[int, ...]]) -> tuple[bytes, Compressed]:
    """Return the bytes of a compressed file, as `save_compressed` writes it, and the record of its contents.

    Raises:
        NameMatchError: the model has no weight of a name.
    """
    unknown = [name for name in blocks if name not in model.state_dict()]
    if unknown:
        known_names = ", ".join(name for name, tensor in model.state_dict().items() if tensor.dim() > 1)
        raise NameMatchError(f"blocks= names {unknown[0]!r}, which is no weight of the model; there are {known_names}")
    streams: dict[str, list[bytes]] = {name: [] for name in STREAMS}
    entries, counts = [], {FREE: 0, UNIFIED: 0, PRUNED: 0}
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        shape = blocks.get(name)
        entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)[6:]}
        if shape is None:
            streams["rest"].append(_as_bytes(tensor))
        else:
            entry |= _write_blocks(name, tensor, Blocks(tuple(tensor.shape), shape), streams, counts)
        entries.append(entry)
    coded_streams = {name: _compress(b"".join(chunks)) for name, chunks in streams.items()}
    header = {"tensors": entries, "streams": [[name, how, len(data)] for name, (how, data) in coded_streams.items()]}
    text = json.dumps(header, separators=(",", ":")).encode()
    packed_text = lzma.compress(text, preset=9)
    content = b"".join(data for _, data in coded_streams.values())
    body = MAGIC + len(packed_text).to_bytes(8, "little") + packed_text + content
    body += hashlib.sha256(body).digest()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    total = sum(tensor.numel() for tensor in tensors.values())
    return body, Compressed(total, counts[PRUNED], counts[UNIFIED], counts[FREE], size, len(body))


@entry_point
def load_compressed(model: nn.Module, path: str | Path) -> nn.Module:
    """Give a model the parameters and buffers of a file, bit for bit those that were saved.

    Args:
        model: of the class and shapes that were saved; it is changed in place.
        path: the file.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another network; the model is as it was.
    """
    current = model.state_dict()
    tensors = read_compressed(Path(path), current)
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(tensors[name])
    return model


@entry_point
def halved(model: nn.Module) -> nn.Module:
    """Round all floating-point numbers of a model, in place, to such as 16 bits hold; it stays in its own type."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))
    return model


def _write_blocks(
    name: str, tensor: Tensor, blocks: Blocks, streams: dict[str, list[bytes]], counts: dict[int, int]
) -> dict[str, Any]:
    check_blocks(blocks, name)
    values, labels = blocks.cut(tensor.detach().cpu()), existing_labels(blocks, tensor)
    real = blocks.cut(torch.ones(tensor.shape)) > 0
    for kind in counts:
        counts[kind] += int(real[labels == kind].sum())
    magnitudes = values[labels == UNIFIED].abs().amax(1)
    negative = signs(values[labels == UNIFIED])[real[labels == UNIFIED]] < 0
    free_values = values[labels == FREE][real[labels == FREE]]
    streams["labels"].append(labels.numpy().astype(np.uint8).tobytes())
    streams["signs"].append(np.packbits(negative.numpy()).tobytes())
    entry: dict[str, Any] = {"blocks": list(blocks.shape)}
    for stream, numbers in (("magnitudes", magnitudes), ("free", free_values)):
        fits_half = bool((numbers.half().to(numbers.dtype) == numbers).all()) and numbers.element_size() > 2
        entry[stream] = [numbers.numel(), "float16" if fits_half else str(numbers.dtype)[6:]]
        streams[stream].append(_as_bytes(numbers.half() if fits_half else numbers))
    return entry


def _as_bytes(tensor: Tensor) -> bytes:
    """Return the tensor's bytes, those of equal significance together: they are alike."""
    flat = tensor.detach().cpu().contiguous().flatten()
    width = flat.element_size()
    return flat.view(torch.uint8).view(-1, width).T.contiguous().numpy().tobytes() if flat.numel() else b""


def _compress(data: bytes) -> tuple[str, bytes]:
    packed_data = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    return ("lzma", packed_data) if len(packed_data) < len(data) else ("raw", data)
