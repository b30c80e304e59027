"""Exchange of results and failures between the processes that share work."""

import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import distributed

from secateur.errors import ProcessError, SecateurError

Produced = TypeVar("Produced")


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


shared_work: ContextVar[SharedWork | None] = ContextVar("shared", default=None)


@dataclass(frozen=True)
class _Message:
    """A message from a process to the others.

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
    return distributed.get_rank(_active_group()) if process_count() > 1 else 0


def process_count() -> int:
    """Return the number of processes."""
    return (
        distributed.get_world_size(_active_group())
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def is_shared() -> bool:
    """Return whether several processes share all work of the running public function, and this one does no task."""
    shared = shared_work.get()
    return shared is not None and not shared.is_alone and process_count() > 1


def _active_group() -> Any:
    """Return the group of the processes; None for the default one."""
    shared = shared_work.get()
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
    messages = _gather_messages(label, payload, failure)
    if failure is not None:
        raise _mark_shared(failure)
    for number, message in enumerate(messages):
        if message.failure is not None:
            raise _mark_shared(_failure_in(number, message))
    for number, message in enumerate(messages):
        if message.label != messages[0].label:
            labels = f"process {number} is at {message.label!r}, process 0 at {messages[0].label!r}"
            advice = "call the same functions with the same arguments in every process"
            raise _mark_shared(ProcessError(f"{labels}; {advice}"))
    return [message.payload for message in messages]


def check_same_inputs(inputs: str) -> None:
    """Check that the processes that share work were given the same.

    Args:
        inputs: what they work on, with its digest.

    Raises:
        ProcessError: another process works on something else.
    """
    if is_shared():
        exchange(inputs)


def _gather_messages(label: str, payload: Any, failure: Exception | None) -> list[_Message]:
    """Return the messages of all processes.

    Raises:
        ProcessError: another process has ended.
    """
    packed_messages: list[Any] = [None] * process_count()
    try:
        distributed.all_gather_object(packed_messages, _pack_message(label, payload, failure), group=_active_group())
    except RuntimeError as lost:
        traceback.clear_frames(lost.__traceback__)  # a group that they hold would outlive the interpreter's threads
        message = f"another process ended before {label!r} was done; see its own error"
        raise _mark_shared(ProcessError(message)) from lost
    return [pickle.loads(packed_message) for packed_message in packed_messages]


def _pack_message(label: str, payload: Any, failure: Exception | None) -> bytes:
    """Return a message as bytes; results that can't be sent are a failure of this process."""
    try:
        is_named = failure is None or isinstance(failure, SecateurError)
        failure_to_send: Any = failure if is_named else f"{type(failure).__name__}: {failure}"
        packed_message = pickle.dumps(_Message(label, payload, failure_to_send))
        pickle.loads(packed_message)
    except Exception as unsent:  # noqa: BLE001 (told to all processes, which raise it)
        packed_message = pickle.dumps(_Message(label, failure=f"{type(unsent).__name__}: {unsent or failure}"))
    return packed_message


def _failure_in(number: int, message: _Message) -> Exception:
    """Return the exception to raise for a failure in another process."""
    if isinstance(message.failure, SecateurError):
        message.failure.add_note(f"raised in process {number}, at {message.label!r}")
        return message.failure
    return ProcessError(f"process {number} failed at {message.label!r}: {message.failure}")


def _mark_shared(failure: Exception) -> Exception:
    """Record that all processes raise a failure, and return it."""
    shared = shared_work.get()
    if shared is not None:
        shared.known = failure
    return failure


def broadcast_result(make: Callable[[], Produced], label: str = "a result") -> Produced:
    """Compute a result in the first process and give it to all; an exception there is raised in all."""
    if process_count() == 1:
        return make()
    own_result: Produced | None = None
    with failures_exchanged(label):
        own_result = make() if process_rank() == 0 else None
    result: Produced = exchange(label, own_result)[0]
    return result


def broadcast_if_shared(make: Callable[[], Produced], label: str) -> Produced:
    """Compute a result in the first process where processes share all work, else in this one."""
    return broadcast_result(make, label) if is_shared() else make()


def results_if_shared(make: Callable[[], Produced], label: str) -> list[Produced]:
    """Compute a result in each process where processes share all work, and return those of all; else this one's."""
    if not is_shared():
        return [make()]
    with failures_exchanged(label):
        result = make()
    results: list[Produced] = exchange(label, result)
    return results


@contextmanager
def failures_exchanged(label: str) -> Iterator[None]:
    """Tell the other processes of an exception that is raised within, in place of the next result."""
    try:
        yield
    except Exception as failure:
        shared = shared_work.get()
        if shared is None or failure is not shared.known:
            with suppress(Exception):  # the exception itself says more
                exchange(label, failure=failure)
        raise
