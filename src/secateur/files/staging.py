"""Atomic saves of several files.

Files are written into a folder of their own beside their places. One rename makes that folder the committed save; then
its files are moved to their places. A process that is killed before the rename leaves the old files as they were, one
that is killed after it leaves a committed save, which the next reader or writer completes. Locks on the folders say
whether the process is still alive; they leave no file behind.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from secateur.errors import StorageError
from secateur.files.folders import flush_folder, is_folder, new_folder
from secateur.files.locks import NO_LOCKS, folder_locked, try_lock, unlock

Writer = Callable[[Path], str]
"""A function that writes one file and returns its digest."""
Manifest = Callable[[Mapping[str, str]], Writer]
"""A function that makes the writer of the file with the digests of the others."""
PREFIX = ".secateur-"
COMMITTED = f"{PREFIX}committed"


def write_file(path: Path, writer: Writer) -> None:
    """Write one file atomically.

    Raises:
        StorageError: the file can't be written; an older one of that name is as it was.
    """
    write_files(path.parent, {path.name: writer})


def write_files(
    folder: Path,
    writers: Mapping[str, Writer],
    manifest: tuple[str, Manifest] | None = None,
    stale: Iterable[str] = (),
) -> None:
    """Write several files atomically: all or none of them.

    Args:
        folder: where to; it is made if it is not there.
        writers: by the name of the file.
        manifest: the name and the maker of a file that holds the digests of the others.
        stale: names of files of an earlier save, which are removed where this one does not replace them.

    Raises:
        StorageError: they can't be written, or another process keeps the folder locked; files that were there before
            are as they were.
    """
    names = [*writers, *([manifest[0]] if manifest is not None else [])]
    try:
        with new_folder(folder), _stage(folder) as stage:
            digests = {name: _write_file(stage / name, writer) for name, writer in writers.items()}
            if manifest is not None:
                _write_file(stage / manifest[0], manifest[1](digests))
            flush_folder(stage)
            _check_free(folder, names)
            with folder_locked(folder):
                _complete(folder)
                if len(names) == 1:
                    (stage / names[0]).replace(folder / names[0])
                else:
                    stage.rename(folder / COMMITTED)
                    flush_folder(folder)
                    _complete(folder)
                for name in set(stale) - set(names):
                    (folder / name).unlink(missing_ok=True)
                flush_folder(folder)
    except (OSError, SafetensorError) as failure:
        paths = ", ".join(str(folder / name) for name in names)
        raise StorageError(f"{paths} can't be written: {failure}; what was there before is untouched") from failure


@contextmanager
def reading(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Keep writers from replacing files while several of them are read.

    Yields:
        The path of each file by its name.

    Raises:
        StorageError: another process keeps the folder locked.
    """
    if not is_folder(folder, follow=True):
        yield folder.joinpath
        return
    if is_folder(folder / COMMITTED):
        with contextlib.suppress(OSError), folder_locked(folder):  # the folder may be read-only
            _complete(folder)
    with folder_locked(folder, shared=True):
        committed_folder = folder / COMMITTED
        yield (
            lambda name: (
                committed_folder / name
                if is_folder(committed_folder) and (committed_folder / name).exists()
                else folder / name
            )
        )


def text_writer(text: str) -> Writer:
    """Return a writer of text in UTF-8."""
    return bytes_writer(text.encode("utf-8"))


def bytes_writer(content: bytes) -> Writer:
    """Return a writer of bytes."""

    def write(path: Path) -> str:
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    return write


def _write_file(path: Path, writer: Writer) -> str:
    """Write a file to the disk and return its digest."""
    path.touch()
    mode = path.stat().st_mode & 0o777
    digest = writer(path)
    path.chmod(mode)  # that of any new file: safetensors lets its owner alone read it
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return digest


def _check_free(folder: Path, names: Iterable[str]) -> None:
    """Check that no folder has the name of a file to write.

    Raises:
        OSError: a folder has the name of a file.
    """
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name} is a folder")


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """Create a staging folder; remove the staging folders of terminated processes first."""
    with folder_locked(folder):
        _complete(folder)
        _remove_leftovers(folder)
        stage = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        lock = try_lock(stage)
    try:
        stage.chmod((folder.stat().st_mode & 0o777) | 0o700)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        unlock(lock)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f"{PREFIX}*"):
        if leftover.name == COMMITTED or not is_folder(leftover):
            continue
        lock = try_lock(leftover)
        if lock not in (None, NO_LOCKS):  # no running process holds it
            shutil.rmtree(leftover, ignore_errors=True)
            unlock(lock)


def _complete(folder: Path) -> None:
    """Move the files of a committed save to their places."""
    committed_folder = folder / COMMITTED
    if not is_folder(committed_folder):
        return
    for file in sorted(committed_folder.iterdir()):
        file.replace(folder / file.name)
    flush_folder(folder)
    committed_folder.rmdir()
