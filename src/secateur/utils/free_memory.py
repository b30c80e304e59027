"""The return of freed memory to the system, which the C library of Linux keeps for itself otherwise."""

import ctypes
import functools
from typing import Any

LEAST = 256 << 20
COUNTS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _HeapCounts(ctypes.Structure):
    """The counts of `mallinfo2`, each a `size_t`."""

    _fields_ = [(name, ctypes.c_size_t) for name in COUNTS]


def return_free_memory() -> None:
    """Return memory that this process has freed to the system, if it is 256 MiB or more.

    glibc keeps the memory of freed tensors below 32 MiB for later ones of the process. Between the layers of a large
    model these are of other sizes, so that the process grows to several times of what it uses. Less is kept: pages that
    are returned and taken again for each layer cost a twentieth of the repairs of a small network. On other systems
    nothing is done.

    Examples:
        >>> return_free_memory()
    """
    library = _c_library()
    if library is not None and library.mallinfo2().fordblks >= LEAST:
        library.malloc_trim(0)


@functools.cache
def _c_library() -> Any:
    """Return the C library of the process, or None if it is not a recent glibc."""
    try:
        library: Any = ctypes.CDLL(None)
        counts, _ = library.mallinfo2, library.malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    counts.restype = _HeapCounts
    return library
