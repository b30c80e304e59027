"""Blocks shared between the processes of a launched program (`torchrun`), which then all know all of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Produced = TypeVar("Produced")


def process_rank() -> int:
    """The number of this process, 0 where there is only one."""
    return distributed.get_rank() if _several() else 0


def process_count() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if _several() else 1


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def map_sharded(blocks: Sequence[int], make: Callable[[int], Produced]) -> list[Produced]:
    """What `make` gives for each block, in order; each process makes its part. What fails in one fails in all."""
    if not _several():
        return [make(block) for block in blocks]
    count = distributed.get_world_size()
    made: list[Produced] | Exception
    try:
        made = [make(block) for block in blocks[distributed.get_rank() :: count]]
    except Exception as failure:  # noqa: BLE001 (raised again below, in every process)
        made = failure
    parts: list[Any] = [None] * count
    distributed.all_gather_object(parts, made)
    for part in parts:
        if isinstance(part, Exception):
            raise part
    return [parts[place % count][place // count] for place in range(len(blocks))]


def broadcast_result(make: Callable[[], Produced]) -> Produced:
    """What the first process makes, for all. What fails there fails in all."""
    if not _several():
        return make()
    made: Any = None
    if distributed.get_rank() == 0:
        try:
            made = make()
        except Exception as failure:  # noqa: BLE001 (raised again below, in every process)
            made = failure
    held: list[Any] = [made]
    distributed.broadcast_object_list(held)
    found = held[0]
    if isinstance(found, Exception):
        raise found
    result: Produced = found
    return result


@contextmanager
def launched_processes() -> Iterator[None]:
    """Join the other processes if this one was launched with some by `torchrun`."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if not several:
        yield
        return
    store, own, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the launcher's store still holds what the dead said
    store = PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group("gloo", store=store, rank=own, world_size=count)  # objects are small, on the CPU
    try:
        yield
    finally:
        distributed.destroy_process_group()
