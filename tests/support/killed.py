"""Work in processes of their own, that are killed at a call to the file system."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from secateur.errors import StorageError

STEPS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "fcntl.flock", "shutil.rmtree")
REFUSED, FAILED = 3, 4


def forked(work: Callable[[], Any]) -> int:
    """Do something in a process of its own; its exit status, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except StorageError:
            os._exit(REFUSED)
        finally:
            os._exit(FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(number: int, how: int, work: Callable[[], Any]) -> int:
    """Do something in a process that is killed at its so-manieth call to the file system."""
    return forked(partial(_counted, number, how, work))


def _counted(number: int, how: int, work: Callable[[], Any]) -> None:
    seen = 0

    def count(event: str, _: Any) -> None:
        nonlocal seen
        if event in STEPS:
            seen += 1
            if seen > number:
                os.kill(os.getpid(), how)

    sys.addaudithook(count)
    work()
