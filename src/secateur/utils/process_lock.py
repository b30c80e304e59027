"""The lock for code that changes state of the whole process: exports, torch's switches, global random states."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ProcessLock:
    """A re-entrant lock, free in a process that was forked while another thread held it."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait until no other thread is inside; nested use by one thread passes."""
        lock = self._lock  # the lock that is released, even if this process was forked meanwhile
        with lock:
            yield


exclusive = ProcessLock()
