"""Results of a run that is interrupted and goes on: each by its key, in one file that is replaced atomically."""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.errors import StorageError
from secateur.files.staging import write_file
from secateur.files.states import read_state, state_writer
from secateur.utils.collected_warnings import own_warnings, warn
from secateur.utils.distributed import is_shared
from secateur.utils.mapped_tensors import TensorRoom
from secateur.utils.shared_tasks import map_tasks, works_alone

State = Mapping[str, Any]


class StateMemo:
    """Results by key; this class keeps those alone that processes computed ahead, for runs without a checkpoint."""

    def __init__(self) -> None:
        self._ahead: dict[str, State] = {}

    def recall(self, key: str, compute: Callable[[], State]) -> State:
        """Return the state of a key, or compute it and keep it.

        Warnings that the computation gave are given again where it is not repeated.

        Args:
            key: everything that the state depends on, beside what the whole run depends on.
            compute: returns nested dicts, lists, tensors and plain values.
        """
        return self._ahead[key] if key in self._ahead else compute()

    def compute_ahead(self, name: str, computations: Mapping[str, Callable[[], State]]) -> None:
        """Compute states that are likely to be asked for next, each in one of the processes that share the work.

        Nothing is done in a single process: there, states are computed when they are asked for.

        Args:
            name: what the states are.
            computations: for each key the function that computes its state.
        """
        keys = [key for key in computations if not self._is_known(key)]
        if is_shared() and len(keys) > 1:
            states = map_tasks(name, keys, lambda key: computations[key](), digest=key_of(*keys))
            self._ahead.update(zip(keys, states, strict=True))

    def _is_known(self, key: str) -> bool:
        return key in self._ahead

    def under(self, prefix: str) -> "StateMemo":
        """Return a memo whose keys begin with a prefix."""
        return PrefixedMemo(self, prefix)


class PrefixedMemo(StateMemo):
    """A memo whose keys begin with a prefix."""

    def __init__(self, memo: StateMemo, prefix: str) -> None:
        super().__init__()
        self._memo, self._prefix = memo, prefix

    def recall(self, key: str, compute: Callable[[], State]) -> State:
        """Return the state of a key, or compute it and keep it; see `StateMemo`."""
        return self._memo.recall(f"{self._prefix} {key}", compute)


class FileMemo(StateMemo):
    """Results by key in a file.

    Where processes share a run, all of them have the same results: each reads the file, and keeps what all compute.
    What one process computes in a task of its own is not kept. One process writes the file.

    Args:
        path: the file.
        of: a fingerprint of what the whole run depends on.
        seconds: the interval between two writes; 0 to write after each computation.
        is_written: whether this process writes the file.

    Raises:
        StorageError: the file is damaged, or of another run.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "plans.safetensors"
        >>> FileMemo(path, "run").recall("a", lambda: {"loss": torch.ones(1)})
        {'loss': tensor([1.])}
        >>> FileMemo(path, "run").recall("a", lambda: {"loss": torch.zeros(1)})
        {'loss': tensor([1.])}
    """

    def __init__(self, path: Path, of: str, seconds: float = 0.0, is_written: bool = True) -> None:
        super().__init__()
        self._path, self._of, self._seconds, self._is_written = path, of, seconds, is_written
        self._entries: dict[str, Any] = {}
        self._room = TensorRoom()  # states of large models are in files of their own until this one is written
        self._is_new, self._written = False, time.monotonic()
        if path.exists():
            self._entries, written_of = read_state(path)
            if written_of != of:
                raise StorageError(f"{path} is of another run; remove it, or give another checkpoint")

    def recall(self, key: str, compute: Callable[[], State]) -> State:
        """Return the state of a key, or compute it and keep it; see `StateMemo`."""
        name = _entry_name(key)
        if name not in self._entries:
            if works_alone():
                return compute()
            warnings_before = len(own_warnings())
            state = super().recall(key, compute)
            arisen = [[str(warning), warning.subject, warning.kind] for warning in own_warnings()[warnings_before:]]
            self._entries[name] = {"state": _detached_copy(state, self._room), "warnings": arisen}
            self._is_new = True
            if time.monotonic() - self._written >= self._seconds:
                self.save()
            return state
        for message, subject, kind in self._entries[name]["warnings"]:
            warn(message, subject, kind)
        return dict(self._entries[name]["state"])

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of all results, in alphabetical order."""
        return tuple(sorted(self._entries))

    def _is_known(self, key: str) -> bool:
        return super()._is_known(key) or _entry_name(key) in self._entries

    def save(self) -> None:
        """Write the file, if there is something new and this process writes it.

        Raises:
            StorageError: it can't be written; an older one is as it was.
        """
        if self._is_new and self._is_written:
            write_file(self._path, state_writer(self._entries, self._of))
            self._is_new = False
        self._written = time.monotonic()


def _entry_name(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _detached_copy(state: Any, room: TensorRoom) -> Any:
    """Return a state with copies of its tensors that nothing else changes, in memory as long as there is room."""
    if isinstance(state, Tensor):
        return room.copy(state.detach())
    if isinstance(state, Mapping):
        return {key: _detached_copy(item, room) for key, item in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_detached_copy(item, room) for item in state)
    return state


def key_of(*contents: Any) -> str:
    """Return a key for tensors, dicts of tensors and plain values.

    Examples:
        >>> key_of("plan", {"0": torch.tensor([1, 2])}) == key_of("plan", {"0": torch.tensor([1, 2])})
        True
    """
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        for name, value in sorted(content.items()) if isinstance(content, Mapping) else [("", content)]:
            is_tensor = isinstance(value, Tensor)
            text = f"{value.dtype} {tuple(value.shape)}" if is_tensor else repr(value)
            digest.update(f"{len(name)} {name} {len(text)} {text}".encode())
            if is_tensor:
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
