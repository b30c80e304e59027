"""Files that are written whole or not at all, and read only if they are what they say."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.errors import StorageError

Writer = Callable[[Path], None]


def write_whole(writers: Mapping[Path, Writer]) -> None:
    """Write files beside their places, then rename them all, so that either all old or all new ones are there.

    Raises:
        StorageError: one can't be written; the old files are as they were.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, write in writers.items():
            staged[path] = _beside(path)
            write(staged[path])
            staged[path].chmod(0o666 & ~_umask())
            with staged[path].open("rb") as written:
                os.fsync(written.fileno())
        for path, beside in staged.items():
            beside.replace(path)
    except (OSError, SafetensorError) as failure:
        places = ", ".join(str(path) for path in writers)
        raise StorageError(f"{places} can't be written: {failure}; what was there before is untouched") from failure
    finally:
        for beside in staged.values():
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A new file in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    return Path(name)


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def text_writer(text: str) -> Writer:
    """Writes text as UTF-8."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def json_writer(content: Mapping[str, Any]) -> Writer:
    """Writes JSON with a checksum of its content, as `read_json` wants it."""
    return text_writer(json.dumps({**content, "checksum": _checksum(content)}, indent=1))


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """What `json_writer` wrote, if it is of the expected format.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another format.
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    if not isinstance(written, dict) or written.get("format") != expected:
        found = written.get("format") if isinstance(written, dict) else type(written).__name__
        raise StorageError(f"{path} is not of this version: it holds {found!r} where {expected!r} was expected")
    if written.pop("checksum", None) != _checksum(written):
        raise StorageError(f"{path} was altered or damaged: its checksum does not match")
    return written


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def tensors_writer(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Writer:
    """Writes tensors as safetensors; those that share memory are written each for itself."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def write(path: Path) -> None:
        save_file(own, path, dict(metadata))

    return write


def read_tensors(path: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file and what its metadata say about it.

    Raises:
        StorageError: it is missing, damaged, or of another format than `expected`.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    if metadata.get("format") != expected:
        raise StorageError(f"{path} holds {metadata.get('format', 'other tensors')!r} where {expected!r} was expected")
    return tensors, json.loads(metadata["about"])


def program_writer(exported: torch.export.ExportedProgram) -> Writer:
    """Writes an exported program as torch does, `.pt2`."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            torch.export.save(exported, file)

    return write


def read_program(path: Path) -> nn.Module:
    """An exported program as a module.

    Raises:
        StorageError: it is missing, cut off or damaged.
    """
    logger = logging.getLogger("torch.export")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)  # what it would say is in the error
        with path.open("rb") as file:
            return torch.export.load(file).module(check_guards=False)
    except Exception as failure:  # torch raises many types on a damaged archive
        raise StorageError(
            f"{path} can't be read as an exported program: {type(failure).__name__}: {failure}"
        ) from failure
    finally:
        logger.setLevel(level)
