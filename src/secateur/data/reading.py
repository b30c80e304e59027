"""Reading of data that are produced item by item, within memory: data sets, loaders and generators."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch.utils import _pytree as pytree

from secateur.data.forms import is_row
from secateur.errors import DataError
from secateur.utils.available_memory import available_bytes
from secateur.utils.progress import counted

MOST_BATCHES, MOST_ROWS = 100_000, 10_000_000  # of data that don't say how many they are
BYTES_BETWEEN_CHECKS, ITEMS_BETWEEN_CHECKS = 1 << 28, 1000
LEAST_FREE = 0.1  # of the memory that is free at the start
ADVICE = "a few hundred examples are enough: give a part, such as itertools.islice(data, 20) or torch.utils.data.Subset"


def free_memory() -> int | None:
    """Return the bytes that are free for tensors, or None where the system does not say."""
    return available_bytes(torch.device("cpu"))


def read_items(
    data: Iterable[Any],
    length: int | None,
    most_items: int | None = None,
    free_bytes: Callable[[], int | None] = free_memory,
) -> list[Any]:
    """List the items that data produce.

    Args:
        data: the data.
        length: the number of items, or None where it is unknown.
        most_items: the largest number of items of unknown number; by default more for single examples than for batches.
        free_bytes: a function that returns the bytes that are free.

    Raises:
        DataError: the data do not end, or fill the memory.
    """
    at_start, unchecked_bytes = free_bytes(), 0
    items: list[Any] = []
    with counted("reading data", length) as step:
        for item in data:
            if most_items is None:
                most_items = MOST_ROWS if is_row(item) else MOST_BATCHES
            items.append(item)
            unchecked_bytes += sum(int(getattr(leaf, "nbytes", 0)) for leaf in pytree.tree_leaves(item))
            is_checked = unchecked_bytes > BYTES_BETWEEN_CHECKS or len(items) % ITEMS_BETWEEN_CHECKS == 0
            if is_checked and at_start is not None:
                unchecked_bytes = 0
                if (free_bytes() or 0) < LEAST_FREE * at_start:
                    total = "" if length is None else f" of {length}"
                    raise DataError(
                        f"{len(items)}{total} items of data filled {at_start / 1e9:.1f} GB of memory; {ADVICE}"
                    )
            if length is None and len(items) > most_items:
                raise DataError(f"data gave more than {most_items:,} items; {ADVICE}")
            step.advance()
    return items


def length_of(data: Any) -> int | None:
    """Return the number of items, or None where data do not say it."""
    try:
        return len(data)
    except TypeError:  # loaders have a length if their data set has one
        return None


def rows_of(data: Any) -> Iterator[Any]:
    """Yield the examples of a data set by their numbers, up to its length or its first IndexError."""
    length = length_of(data)
    for number in count() if length is None else range(length):
        try:
            row = data[number]
        except IndexError:
            if length is None:
                return
            raise
        yield row
