"""Contents of files that are damaged by chance, or crafted with a digest that is right.

Crafted contents are functions that write them, with names: of many thousands a test takes some hundreds.
"""

import hashlib
import json
import lzma
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mutated_json import MENU, WRONG, mutated

MAGIC = b"secateur blocks 1\n"
NESTED = "[" * 100_000

Contents = Iterator[tuple[str, Callable[[], bytes]]]


def by_chance(whole: bytes, draws: random.Random) -> bytes:
    """A bit, a byte or a piece of the content changed, cut off, doubled or put elsewhere."""
    at, other = sorted(draws.randrange(len(whole)) for _ in range(2))
    content = bytearray(whole)
    how = draws.randrange(6)
    if how <= 1:
        content[at] ^= 1 << draws.randrange(8)
    elif how == 2:
        content[at] = draws.randrange(256)
    elif how == 3:
        del content[at:]
    elif how == 4:
        content[at:at] = draws.randbytes(draws.randrange(1, 9))
    else:
        content[at : other + 1] = content[at : other + 1][::-1]
    return bytes(content)


def signed(content: Mapping[str, Any]) -> bytes:
    """JSON with the digest that a record has."""
    if not str(content.get("format", "/")).count("/"):  # as version 0.7 wrote it
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, **({} if "secateur report" in str(content) else {"checksum": digest})}).encode()
    body = json.dumps(content, indent=1).rstrip()[:-1].rstrip().encode()
    return body + f',\n "checksum": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def crafted_records(whole: bytes) -> Contents:
    """Crafted JSON."""
    content = json.loads(whole)
    content.pop("checksum", None)
    for name, change in mutated(content, MENU):
        yield name, partial(_signed_change, change)
    yield "deep nesting", NESTED.encode
    nested_field = signed({**content, "zz": 0}).replace(b'"zz": 0', f'"zz": {NESTED}'.encode())
    yield "deep nesting in a field", lambda: nested_field


def _signed_change(change: Callable[[], Any]) -> bytes:
    return signed(change())


def crafted_tensors(whole: bytes) -> Contents:
    """Crafted files of tensors: what is said of them, their types, shapes and numbers."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    data = whole[8 + length :]
    metadata = header.pop("__metadata__")
    tensors_by_name = {name: _tensor(entry, data) for name, entry in header.items()}
    about = json.loads(metadata["about"])
    for name, change in mutated(about, WRONG):
        if name != "('seed',) = -1":  # as good as any
            yield f"about{name}", partial(_packed_about, tensors_by_name, metadata, change)
    yield "about is nested", partial(packed, tensors_by_name, {**metadata, "about": NESTED})
    for key in metadata:
        others = {name: value for name, value in metadata.items() if name != key}
        yield f"no {key}", partial(packed, tensors_by_name, others, sign=False)
    for name, tensor in tensors_by_name.items():
        others = {key: value for key, value in tensors_by_name.items() if key != name}
        yield f"{name} left out", partial(packed, others, metadata)
        yield f"{name} twice", partial(packed, {**tensors_by_name, f"{name}x": tensor}, metadata)
        for change, changed in _changed_tensors(name, tensor, metadata["format"]):
            yield f"{name} {change}", partial(packed, {**tensors_by_name, name: changed}, metadata)


def _packed_about(
    tensors_by_name: Mapping[str, Tensor], metadata: Mapping[str, str], about: Callable[[], Any]
) -> bytes:
    return packed(tensors_by_name, {**metadata, "about": json.dumps(about())})


def _changed_tensors(name: str, tensor: Tensor, file_format: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors in the place of one: of another shape or type, or with another number."""
    yield "flat", tensor.flatten()[:-1]
    yield "deep", tensor[None]
    yield "empty", tensor.flatten()[:0]
    yield "of another type", tensor.to(torch.int32 if tensor.is_floating_point() else torch.float32)
    values: tuple[float, ...] = (-1, 2**40, 2**62) if tensor.dtype == torch.int64 else ()
    is_finite_by_rule = file_format.startswith(("secateur scores", "secateur training"))
    if tensor.is_floating_point() and not name.startswith("noises") and is_finite_by_rule:
        values = UNFIT
    for value in values:
        filled = tensor.clone()
        filled.view(-1)[:1] = value
        yield f"has {value}", filled


UNFIT = (float("inf"),)
TYPES = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
CODES = {**{kind: code for code, kind in TYPES.items()}, torch.int32: "I32"}


def _tensor(entry: Mapping[str, Any], data: bytes) -> Tensor:
    content, kind = data[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]
    flat = torch.frombuffer(bytearray(content), dtype=kind) if content else torch.zeros(0, dtype=kind)
    return flat.reshape(entry["shape"])


def packed(tensors_by_name: Mapping[str, Tensor], metadata: Mapping[str, str], sign: bool = True) -> bytes:
    """A file of tensors, with its digest."""
    if sign and "digest" in metadata:
        from secateur.files import digest_of  # noqa: PLC0415 (version 0.7 has none)

        signed = {name: metadata[name] for name in ("format", "about")}
        metadata = {**metadata, "digest": digest_of(tensors_by_name, signed)}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors_by_name.items():
        content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def crafted_blocks(whole: bytes) -> Contents:
    """Crafted compressed networks: the header, and streams that swell."""
    at = len(MAGIC) + 8
    length = int.from_bytes(whole[len(MAGIC) : at], "little")
    header, rest = json.loads(lzma.decompress(whole[at : at + length])), whole[at + length : -32]

    def sealed(packed_header: bytes, streams: bytes) -> bytes:
        body = MAGIC + len(packed_header).to_bytes(8, "little") + packed_header + streams
        return body + hashlib.sha256(body).digest()

    def with_header(change: Callable[[], Any]) -> bytes:
        return sealed(lzma.compress(json.dumps(change()).encode(), preset=0), rest)

    def with_swelling_streams() -> bytes:
        swollen = lzma.compress(bytes(64 << 20), preset=0)
        swelling = {**header, "streams": [[name, "lzma", len(swollen)] for name, _, _ in header["streams"]]}
        return sealed(lzma.compress(json.dumps(swelling).encode()), swollen * len(header["streams"]))

    for name, change in mutated(header, MENU, (*WRONG, "nn", "float16", "x")):
        yield name, partial(with_header, change)
    yield "a header that swells", lambda: sealed(lzma.compress(bytes(128 << 20), preset=0), rest)
    yield "a header that is no LZMA", lambda: sealed(b"x" * 40, rest)
    yield "deep nesting", lambda: sealed(lzma.compress(NESTED.encode()), rest)
    yield "streams that swell", with_swelling_streams
    yield "a header longer than the file", lambda: MAGIC + (2**62).to_bytes(8, "little") + rest
    yield "more than there is", lambda: sealed(lzma.compress(json.dumps(header).encode()), rest + b"x")
