"""Folders of files: made and removed again, recognised, flushed to the disk."""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there; where an error ends the context, folders that were made for it are removed."""
    missing = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another process may have written to one of them meanwhile
            for path in missing:
                path.rmdir()
        raise


def is_folder(path: Path, follow: bool = False) -> bool:
    """Return whether the path is a folder; a link to a folder counts only if `follow`."""
    try:
        return stat.S_ISDIR(path.stat(follow_symlinks=follow).st_mode)
    except (OSError, ValueError):
        return False


def flush_folder(folder: Path) -> None:
    """Flush the renames in a folder to the disk, if the file system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
