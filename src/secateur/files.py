"""Files that are written whole or not at all, and read only if they are what they say."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateur.errors import StorageError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside a file, then rename, so that whatever happens either the old or the new one is there.

    Raises:
        StorageError: it can't be written; the old file is as it was.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    except (OSError, SafetensorError) as failure:
        raise StorageError(f"{path} can't be written: {failure}; what was there before is untouched") from failure
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda beside: _write_text(beside, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_whole(path, lambda beside: save_file(own, beside, dict(metadata)))


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
