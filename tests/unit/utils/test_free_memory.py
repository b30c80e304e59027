"""Freed memory is returned to the system where the C library keeps it."""

from pathlib import Path

import pytest
import torch

from secateur.utils import free_memory
from secateur.utils.free_memory import LEAST, return_free_memory

STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not STATUS.exists() or free_memory._c_library() is None, reason="the C library is not glibc")
def test_memory_below_a_tensor_that_stays_is_returned() -> None:
    count, size = 2 * LEAST >> 16, 1 << 16  # below glibc's limit of memory that the system gives by itself
    tensors = [torch.ones(size, dtype=torch.uint8) for _ in range(count)]
    kept_tensor = tensors.pop()
    tensors.clear()
    before = resident_bytes()
    return_free_memory()
    assert before - resident_bytes() > LEAST
    assert bool(kept_tensor.all())


def test_nothing_is_done_where_little_is_free_or_the_library_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def mallinfo2(self) -> object:
            return free_memory._HeapCounts(fordblks=LEAST - 1)

        def malloc_trim(self, pad: int) -> int:
            pytest.fail("returned memory")

    monkeypatch.setattr(free_memory, "_c_library", Library)
    return_free_memory()
    monkeypatch.setattr(free_memory, "_c_library", lambda: None)
    return_free_memory()
