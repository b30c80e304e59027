"""Reading of regular files up to a maximal size; devices and pipes would block or never end."""

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from secateur.errors import StorageError

MOST_BYTES = 1 << 28  # of a file that is read into memory at once


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        StorageError: the file is missing, can't be opened, or is a folder, a device, a pipe or a socket.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path} can't be read: it is a folder, a device or a pipe; give a regular file")
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path) -> None:
    """Check that a path is a regular file.

    Raises:
        StorageError: the file is missing or not a regular file.
    """
    open_regular(path).close()


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        StorageError: the file is missing, not a regular file, or larger.
    """
    with open_regular(path) as file:
        try:
            content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        except OSError as failure:
            raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    if len(content) > most:
        raise StorageError(f"{path} is larger than {most:,} bytes, which no file of this kind is")
    return content


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a regular file.

    Raises:
        StorageError: the file is missing, or not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
