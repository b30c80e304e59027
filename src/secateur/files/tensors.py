"""Tensors in safetensors files, with metadata and a digest of both."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar, overload

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateur.errors import StorageError
from secateur.files.records import Record
from secateur.files.regular import check_regular
from secateur.files.staging import Writer


class About(Record, frozen=True):
    """The metadata of a file of tensors.

    `HAS_DIGEST` is False for files of version 0.7.
    """

    HAS_DIGEST: ClassVar[bool] = True


NewAbout = TypeVar("NewAbout", bound=About)
OldAbout = TypeVar("OldAbout", bound=About)


def tensors_writer(tensors: Mapping[str, Tensor], about: About) -> Writer:
    """Return a writer of tensors, which are not copied; tensors that share memory are written separately."""
    contiguous = _in_own_memory(tensors)

    def write(path: Path) -> str:
        metadata = {"format": about.FORMAT, "about": msgspec.json.encode(about).decode()}
        digest = digest_of(contiguous, metadata)
        save_file(contiguous, path, {**metadata, "digest": digest})
        return digest

    return write


def _in_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors; those whose memory belongs to an earlier one as well are copied."""
    separate, memories = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        contiguous = tensor.detach().cpu().contiguous()
        memory = contiguous.untyped_storage().data_ptr()
        separate[name] = contiguous.clone() if memory in memories else contiguous
        memories.add(memory)
    return separate


@overload
def read_tensors(path: Path, kinds: tuple[type[NewAbout]]) -> tuple[dict[str, Tensor], NewAbout, str]: ...
@overload
def read_tensors(
    path: Path, kinds: tuple[type[NewAbout], type[OldAbout]]
) -> tuple[dict[str, Tensor], NewAbout | OldAbout, str]: ...
def read_tensors(path: Path, kinds: tuple[type[About], ...]) -> tuple[dict[str, Tensor], About, str]:
    """Read a file of tensors of one of these kinds.

    Returns:
        The tensors, their metadata, and the digest of both.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another format.
    """
    check_regular(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            # In the file they begin at any byte, and a kernel rounds otherwise for memory that is not aligned.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    by_format = {kind.FORMAT: kind for kind in kinds}
    kind = by_format.get(metadata.get("format", ""))
    if kind is None:
        written = metadata.get("format", "other tensors")
        raise StorageError(f"{path} holds {written!r} where {kinds[0].FORMAT!r} was expected")
    digest = digest_of(tensors, {name: metadata.get(name, "") for name in ("format", "about")})
    if kind.HAS_DIGEST and metadata.get("digest") != digest:
        raise StorageError(f"{path} was altered or damaged: its digest does not match")
    if metadata.keys() != {"format", "about", *(["digest"] if kind.HAS_DIGEST else [])}:
        raise StorageError(f"{path} was altered or damaged: its metadata are {', '.join(sorted(metadata))}")
    try:
        return tensors, msgspec.json.decode(metadata["about"], type=kind), digest
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is cut off or damaged") from failure


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Compute a digest of metadata and of the tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for key, value in sorted((metadata or {}).items()):
        digest.update(f"{key} {len(value)} {value}".encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
