"""Processes that share the work of public functions, such as those of a program that `torchrun` launched."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from secateur.options.call_checks import checked_calls
from secateur.utils.distributed import SharedWork, exchange, failures_exchanged, process_count, shared_work

P = ParamSpec("P")
R = TypeVar("R")
WAIT = timedelta(days=1)  # for the slowest process; the end of a process is noticed at once


@contextmanager
@checked_calls
def shared_processes() -> Iterator[None]:
    """Share the work of public functions between the processes of a program that `torchrun` launched.

    Within this context, `prune`, `score`, `plan`, `repair`, `compare` and `tradeoff` divide their work, and give the
    same result, to the bit, in every process. All processes call the same functions with the same arguments: the same
    weights and examples, for which random ones need a seed. In a program of one process nothing changes.

    Where the program has joined a process group of `torch.distributed`, its processes are those that share; results are
    exchanged over a group of their own by gloo.

    Raises:
        ProcessError: a function in this context raises it where another process failed, has ended, or works on
            something else.

    Examples:
        >>> import torch, secateur as sc
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with sc.shared_processes():  # torchrun --nproc-per-node 2 this_file.py
        ...     result = sc.prune(model, torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
    """
    if shared_work.get() is not None:
        yield
        return
    with _process_group() as group:
        work = SharedWork(group)
        token = shared_work.set(work)
        try:
            yield
        finally:
            shared_work.reset(token)
            work.group = None  # an exception may hold the record until the interpreter ends, and threads with it


@contextmanager
def _process_group() -> Iterator[Any]:
    """Yield a group of all processes by gloo; None where there is one process, or for the default group."""
    if distributed.is_available() and distributed.is_initialized():
        group = distributed.new_group(backend="gloo", timeout=WAIT)
        try:
            yield group
        finally:
            distributed.destroy_process_group(group)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    store, own_rank, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store keeps keys of the attempt that failed
    store = PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group("gloo", store=store, rank=own_rank, world_size=count, timeout=WAIT)
    try:
        yield None
    finally:
        distributed.destroy_process_group()


def in_all_processes(function: Callable[P, R], name: str) -> Callable[P, R]:
    """Return a public function that all processes begin and end together where they share work.

    An exception in one of them ends it in all.

    Args:
        function: the function.
        name: the function's name.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with shared_function(name):
            return function(*args, **kwargs)

    return call


@contextmanager
def shared_function(name: str) -> Iterator[None]:
    """Begin and end a public function in all processes together, so that an exception in one ends it in all.

    Raises:
        ProcessError: another process failed, or called something else.
    """
    work = shared_work.get()
    if work is None or work.function or process_count() == 1:
        yield
        return
    exchange(f"{name}: begin")
    work.function = name
    try:
        with failures_exchanged(name):
            yield
        exchange(f"{name}: end")
    finally:
        work.function = ""
