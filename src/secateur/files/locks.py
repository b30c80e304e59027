"""Locks on folders against other processes and threads."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import StorageError

try:
    import fcntl
except ImportError:  # no such locks on Windows: digests still tell files of two saves apart
    fcntl = None  # type: ignore[assignment]


NO_LOCKS = -1  # in place of a descriptor, where the file system has no locks


PATIENCE = 60.0  # seconds to wait for another process that saves or reads there


@contextmanager
def folder_locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Lock a folder against other processes and threads.

    Raises:
        StorageError: another one does not let go of it.
    """
    lock = try_lock(folder, shared)
    start = time.monotonic()
    while lock is None:
        if time.monotonic() - start > PATIENCE:
            raise StorageError(
                f"another process has been saving or reading in {folder} for {PATIENCE:.0f} s; try again"
            )
        time.sleep(0.01)
        lock = try_lock(folder, shared)
    try:
        yield
    finally:
        unlock(lock)


def try_lock(folder: Path, shared: bool = False) -> int | None:
    """Return a descriptor that holds the lock, None if another process holds it, or NO_LOCKS."""
    if fcntl is None:
        return NO_LOCKS
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return NO_LOCKS
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        return NO_LOCKS
    return descriptor


def unlock(lock: int | None) -> None:
    """Release a lock of `try_lock`."""
    if lock is None or lock == NO_LOCKS:
        return
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
    os.close(lock)
