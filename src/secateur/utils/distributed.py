"""Work shared between the processes of a program launched by `torchrun`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Produced = TypeVar("Produced")


def process_rank() -> int:
    """Return the rank of this process, 0 if there is only one."""
    return distributed.get_rank() if _several() else 0


def process_count() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if _several() else 1


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def map_sharded(blocks: Sequence[int], make: Callable[[int], Produced]) -> list[Produced]:
    """Compute `make(block)` for all blocks, each process a share of them, and gather all results in order.

    An exception in one process is raised in all.
    """
    if not _several():
        return [make(block) for block in blocks]
    count = distributed.get_world_size()
    results: list[Produced] | Exception
    try:
        results = [make(block) for block in blocks[distributed.get_rank() :: count]]
    except Exception as failure:  # noqa: BLE001 (raised again below, in every process)
        results = failure
    gathered: list[Any] = [None] * count
    distributed.all_gather_object(gathered, results)
    for shard in gathered:
        if isinstance(shard, Exception):
            raise shard
    return [gathered[block % count][block // count] for block in range(len(blocks))]


def broadcast_result(make: Callable[[], Produced]) -> Produced:
    """Compute a result in the first process and broadcast it; an exception there is raised in all."""
    if not _several():
        return make()
    produced: Any = None
    if distributed.get_rank() == 0:
        try:
            produced = make()
        except Exception as failure:  # noqa: BLE001 (raised again below, in every process)
            produced = failure
    received: list[Any] = [produced]
    distributed.broadcast_object_list(received)
    outcome = received[0]
    if isinstance(outcome, Exception):
        raise outcome
    result: Produced = outcome
    return result


@contextmanager
def launched_processes() -> Iterator[None]:
    """Initialize the process group if this process was launched by `torchrun` with others."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if not several:
        yield
        return
    store, own_rank, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store keeps keys of the attempt that failed
    store = PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group(
        "gloo", store=store, rank=own_rank, world_size=count
    )  # objects are small, on the CPU
    try:
        yield
    finally:
        distributed.destroy_process_group()
