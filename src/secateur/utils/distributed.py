"""Processes that share the work of public functions, such as those of a program launched by `torchrun`."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from secateur.errors import ProcessError, SecateurError

Produced = TypeVar("Produced")
WAIT = timedelta(days=1)  # for the slowest process; the end of a process is noticed at once


@dataclass(eq=False)
class SharedWork:
    """The processes that share the work of public functions.

    Args:
        group: the group over which they exchange results.
        function: the public function that runs; empty between two of them.
        known: the last failure that all processes were told of.
        is_alone: whether this process does a task of its own.
    """

    group: Any
    function: str = ""
    known: Exception | None = None
    is_alone: bool = False


_shared: ContextVar[SharedWork | None] = ContextVar("shared", default=None)


@dataclass(frozen=True)
class _Message:
    """What a process tells the others.

    Args:
        label: what the processes do at this point.
        payload: the results.
        failure: the error that ended the work of this process, or its text.
    """

    label: str
    payload: Any = None
    failure: SecateurError | str | None = None


def process_rank() -> int:
    """Return the rank of this process, 0 if there is only one."""
    return distributed.get_rank(_group()) if process_count() > 1 else 0


def process_count() -> int:
    """Return the number of processes."""
    return distributed.get_world_size(_group()) if distributed.is_available() and distributed.is_initialized() else 1


def is_shared() -> bool:
    """True if several processes share all work of the public function that runs, and this one does no task now."""
    shared = _shared.get()
    return shared is not None and not shared.is_alone and process_count() > 1


def _group() -> Any:
    """Return the group of the processes; None for the default one."""
    shared = _shared.get()
    return None if shared is None else shared.group


def exchange(label: str, payload: Any = None, failure: Exception | None = None) -> list[Any]:
    """Give the other processes a result, and return those of all, in the order of their ranks.

    Every process calls this in the same order. An exception in one process is raised in all.

    Args:
        label: what the processes do at this point, the same in all of them.
        payload: the result; tensors are on the CPU.
        failure: the exception that ended the work of this process.

    Raises:
        ProcessError: another process failed, has ended, or does something else.
        SecateurError: another process raised it.
    """
    messages = _gathered(label, payload, failure)
    if failure is not None:
        raise _known(failure)
    for number, message in enumerate(messages):
        if message.failure is not None:
            raise _known(_failure_in(number, message))
    for number, message in enumerate(messages):
        if message.label != messages[0].label:
            raise _known(
                ProcessError(
                    f"process {number} is at {message.label!r}, process 0 at {messages[0].label!r}; call the same "
                    "functions with the same arguments in every process"
                )
            )
    return [message.payload for message in messages]


def check_same(inputs: str) -> None:
    """Check that the processes that share work were given the same.

    Args:
        inputs: what they work on, with its digest.

    Raises:
        ProcessError: another process works on something else.
    """
    if is_shared():
        exchange(inputs)


def _gathered(label: str, payload: Any, failure: Exception | None) -> list[_Message]:
    """Return the messages of all processes.

    Raises:
        ProcessError: another process has ended.
    """
    received: list[Any] = [None] * process_count()
    try:
        distributed.all_gather_object(received, _packed(label, payload, failure), group=_group())
    except RuntimeError as lost:
        raise _known(ProcessError(f"another process ended before {label!r} was done; see its own error")) from lost
    return [pickle.loads(packed) for packed in received]


def _packed(label: str, payload: Any, failure: Exception | None) -> bytes:
    """Return a message as bytes; results that can't be sent are a failure of this process."""
    try:
        message = _Message(label, payload, failure if isinstance(failure, SecateurError) or failure is None
                           else f"{type(failure).__name__}: {failure}")  # fmt: skip
        packed = pickle.dumps(message)
        pickle.loads(packed)
    except Exception as unsent:  # noqa: BLE001 (told to all processes, which raise it)
        packed = pickle.dumps(_Message(label, failure=f"{type(unsent).__name__}: {unsent or failure}"))
    return packed


def _failure_in(number: int, message: _Message) -> Exception:
    """Return the exception to raise for a failure in another process."""
    if isinstance(message.failure, SecateurError):
        message.failure.add_note(f"raised in process {number}, at {message.label!r}")
        return message.failure
    return ProcessError(f"process {number} failed at {message.label!r}: {message.failure}")


def _known(failure: Exception) -> Exception:
    """Record that all processes raise a failure, and return it."""
    shared = _shared.get()
    if shared is not None:
        shared.known = failure
    return failure


def map_sharded(blocks: Sequence[int], make: Callable[[int], Produced]) -> list[Produced]:
    """Compute `make(block)` for all blocks, each process a share of them, and gather all results in order.

    An exception in one process is raised in all.
    """
    count = process_count()
    if count == 1:
        return [make(block) for block in blocks]
    with failures_exchanged("blocks"):
        results = [make(block) for block in blocks[process_rank() :: count]]
    gathered = exchange("blocks", results)
    return [gathered[block % count][block // count] for block in range(len(blocks))]


def broadcast_result(make: Callable[[], Produced], label: str = "a result") -> Produced:
    """Compute a result in the first process and give it to all; an exception there is raised in all."""
    if process_count() == 1:
        return make()
    produced: Produced | None = None
    with failures_exchanged(label):
        produced = make() if process_rank() == 0 else None
    result: Produced = exchange(label, produced)[0]
    return result


def broadcast_if_shared(make: Callable[[], Produced], label: str) -> Produced:
    """Compute a result in the first process where processes share all work, else in this one."""
    return broadcast_result(make, label) if is_shared() else make()


@contextmanager
def failures_exchanged(label: str) -> Iterator[None]:
    """Tell the other processes of an exception that is raised within, in place of the next result."""
    try:
        yield
    except Exception as failure:
        shared = _shared.get()
        if shared is None or failure is not shared.known:
            with suppress(Exception):  # the exception itself says more
                exchange(label, failure=failure)
        raise


@contextmanager
def working_alone() -> Iterator[None]:
    """Do a task of this process alone: nothing within is shared with the others."""
    shared = _shared.get()
    assert shared is not None
    shared.is_alone = True
    try:
        yield
    finally:
        shared.is_alone = False


@contextmanager
def shared_function(name: str) -> Iterator[None]:
    """Begin and end a public function in all processes together, so that an exception in one ends it in all.

    Raises:
        ProcessError: another process failed, or called something else.
    """
    shared = _shared.get()
    if shared is None or shared.function or process_count() == 1:
        yield
        return
    exchange(f"{name}: begin")
    shared.function = name
    try:
        with failures_exchanged(name):
            yield
        exchange(f"{name}: end")
    finally:
        shared.function = ""


@contextmanager
def shared_processes() -> Iterator[None]:
    """Share the work of public functions between the processes of a program that `torchrun` launched.

    Within this context, `prune`, `score`, `plan`, `repair`, `compare` and `tradeoff` divide their work, and give the
    same result, to the bit, in every process. All processes call the same functions with the same arguments. In a
    program of one process nothing changes.

    Where the program has joined a process group of `torch.distributed`, its processes are those that share; results are
    exchanged over a group of their own by gloo.

    Raises:
        ProcessError: a function in this context raises it where another process failed, has ended, or works on
            something else.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with sc.shared_processes():  # torchrun --nproc-per-node 2 this_file.py
        ...     result = sc.prune(model, torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
    """
    if _shared.get() is not None:
        yield
        return
    with _process_group() as group:
        token = _shared.set(SharedWork(group))
        try:
            yield
        finally:
            _shared.reset(token)


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
