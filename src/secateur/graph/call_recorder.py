"""Recording of module calls while an export runs."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.graph.module_program import Value
from secateur.graph.recorded_calls import BOUNDARY, CONSTANTS, Event, UnsupportedCodeError, substitute_references
from secateur.options import kind_text


@contextmanager
def recording(model: nn.Module, paths: Collection[str]) -> Iterator[dict[int, Event]]:
    """Mark the boundaries of module calls in a program while it is exported, within a context; yield the events.

    Args:
        model: the model that is exported.
        paths: the modules whose calls are recorded, and the calls that their own code makes; the model's own always is.
    """
    events: dict[int, Event] = {}
    calls = _OpenCalls(paths)
    handles = []
    for path, module in model.named_modules():
        enter, leave = _recording_hooks(path, module, events, calls)
        handles += [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]
    try:
        yield events
    finally:
        for handle in handles:
            handle.remove()


class _OpenCalls:
    """The stack of running calls."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = paths
        self._open: list[tuple[str, bool]] = []

    def enter(self, path: str) -> bool:
        """Push a module; return True if its call is recorded."""
        is_recorded = not self._open or path in self.paths or self._open[-1][0] in self.paths
        self._open.append((path, is_recorded))
        return is_recorded

    def leave(self, path: str) -> bool:
        """Pop a module; return True if its call is recorded. Calls that an exception ended are dropped."""
        while self._open:
            innermost, is_recorded = self._open.pop()
            if innermost == path:
                return is_recorded
        return False


class _Writer:
    """A converter of values to plain data, which collects the tensors and sizes among them."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.sizes: list[torch.SymInt] = []

    def write(self, value: Any) -> Any:
        """Convert a value to plain data."""
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return Value(f"t{len(self.tensors) - 1}")
        if isinstance(value, torch.SymInt):
            self.sizes.append(value)
            return Value(f"s{len(self.sizes) - 1}")
        if type(value) in (tuple, torch.Size):
            return tuple(self.write(nested) for nested in value)
        if type(value) is list:
            return [self.write(nested) for nested in value]
        if type(value) is dict and all(isinstance(key, str) for key in value):
            return {key: self.write(nested) for key, nested in value.items()}
        if value is None or isinstance(value, CONSTANTS):
            return value
        raise UnsupportedCodeError(f"{kind_text(value)} is given to it or returned by it")


def _write_values(value: Any) -> tuple[Any, _Writer | None]:
    writer = _Writer()
    try:
        return writer.write(value), writer
    except UnsupportedCodeError:
        return None, None


def _recording_hooks(path: str, module: nn.Module, events: dict[int, Event], calls: _OpenCalls) -> tuple[Any, Any]:
    signature = inspect.signature(module.forward)

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if calls.enter(path):
            _record_call(path, signature, events, args, kwargs)

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return _record_return(path, events, (args, kwargs), output) if calls.leave(path) else output

    return enter, leave


def _record_call(
    path: str, signature: inspect.Signature, events: dict[int, Event], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    written, writer = _write_values((args, kwargs))
    if writer is None:
        _mark(events, Event(path, True, None), [], [])
        return
    # Tensors come in another order here.
    arguments, same = _write_values(arguments_by_name(signature, args, kwargs))
    references = {id(tensor): f"t{index}" for index, tensor in enumerate(writer.tensors)}
    if same is None or any(id(tensor) not in references for tensor in same.tensors) or same.sizes != writer.sizes:
        arguments = None
    else:
        names = {f"t{index}": Value(references[id(tensor)]) for index, tensor in enumerate(same.tensors)}
        sizes = {f"s{index}": Value(f"s{index}") for index in range(len(same.sizes))}
        arguments = substitute_references(arguments, names | sizes)
    _mark(events, Event(path, True, written, arguments), writer.tensors, writer.sizes)


def _record_return(path: str, events: dict[int, Event], inputs: Any, output: Any) -> Any:
    """Record the output of a call, and return it with an alias in place of each tensor that is an input."""
    input_ids = {id(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)}
    passed_arguments: list[int] = []

    def copy_of_input(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or id(leaf) not in input_ids:
            return leaf
        copy = torch.ops.aten.alias.default(leaf)
        passed_arguments.append(id(copy))
        return copy

    output = pytree.tree_map(copy_of_input, output)
    writer = _Writer()
    leaves = tuple(
        writer.write(leaf).name if isinstance(leaf, Tensor | torch.SymInt) else None
        for leaf in pytree.tree_leaves(output)
    )
    copies = frozenset(f"t{index}" for index, tensor in enumerate(writer.tensors) if id(tensor) in passed_arguments)
    written, again = _write_values(output)
    same = again is not None and [*map(id, again.tensors)] == [*map(id, writer.tensors)]
    _mark(events, Event(path, False, written if same else None, None, leaves, copies), writer.tensors, writer.sizes)
    return output


def arguments_by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by the names of the parameters, with defaults filled in."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _mark(events: dict[int, Event], event: Event, tensors: list[Tensor], sizes: list[torch.SymInt]) -> None:
    events[len(events)] = event
    BOUNDARY(tensors, sizes, len(events) - 1)
