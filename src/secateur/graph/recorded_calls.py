"""The calls of modules in an exported program: where each begins and ends, its arguments and its results."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.graph.module_program import Value
from secateur.graph.program import Program

LIBRARY = torch.library.Library("secateur", "FRAGMENT")
LIBRARY.define("boundary(Tensor[] tensors, SymInt[] sizes, int event) -> ()")
LIBRARY.impl("boundary", lambda tensors, sizes, event: None, "CompositeExplicitAutograd")
BOUNDARY = torch.ops.secateur.boundary.default
torch.fx.node.has_side_effect(BOUNDARY)
CONSTANTS = bool | int | float | str | None


class UnsupportedCodeError(Exception):
    """The error for code of a module that a program can't express."""


@dataclass(frozen=True)
class Event:
    """The entry or the exit of a module.

    Args:
        path: the path of the module.
        enters: True for an entry.
        arguments: the arguments as (args, kwargs), or the result, with `Value` in place of tensors and of dynamic
            sizes, numbered as in the boundary; None if they can't be written as plain data.
        bound: the arguments by the names of the parameters, with defaults filled in.
        leaves: for each leaf of the result its name in `arguments`, None for leaves that are no tensors.
        passed: the names of tensors that the module returned unchanged.
    """

    path: str
    enters: bool
    arguments: Any
    bound: Any = None
    leaves: tuple[str | None, ...] = ()
    passed: frozenset[str] = frozenset()


@dataclass
class RecordedCall:
    """A call of a module in a program.

    Args:
        path: the module's.
        arguments: its (args, kwargs), with the names of nodes in `Value`; None where they can't be written.
        bound: the same by the names of its parameters.
        body: the operators of its own code, and the calls of its submodules.
        output: what it returned; None where it can't be written, `Value` or plain data otherwise.
        results: for each leaf of what it returned the name of a node, None for what is no tensor.
    """

    path: str
    arguments: Any
    bound: Any
    body: "list[Node | RecordedCall]" = field(default_factory=list)
    output: Any = None
    results: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Recording:
    """The calls in a program.

    Args:
        root: the call of the model itself.
        program: the program with its boundaries.
        copies: the names of nodes that only tell apart what was passed on from the value.
        is_fixed: whether it is right for the lengths of the example alone, but for the batch.
    """

    root: RecordedCall
    program: Program
    copies: frozenset[str]
    is_fixed: bool = False

    def length(self, length: Any) -> int | None:
        """Return the length of an axis of an input as a number; None if it is dynamic."""
        if isinstance(length, int):
            return length
        batch = self.program.batched
        varies = batch is not None and any(str(symbol) == batch for symbol in length.node.expr.free_symbols)
        return None if varies or not self.is_fixed else int(length.node.hint)


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
        enter, leave = _hooks(path, module, events, calls)
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
        raise UnsupportedCodeError(f"a {type(value).__name__} is given to it or returned by it")


def _written(value: Any) -> tuple[Any, _Writer | None]:
    writer = _Writer()
    try:
        return writer.write(value), writer
    except UnsupportedCodeError:
        return None, None


def _hooks(path: str, module: nn.Module, events: dict[int, Event], calls: _OpenCalls) -> tuple[Any, Any]:
    signature = inspect.signature(module.forward)

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not calls.enter(path):
            return
        written, writer = _written((args, kwargs))
        if writer is None:
            _mark(events, Event(path, True, None), [], [])
            return
        arguments, same = _written(arguments_by_name(signature, args, kwargs))  # tensors come in another order here
        references = {id(tensor): f"t{index}" for index, tensor in enumerate(writer.tensors)}
        if same is None or any(id(tensor) not in references for tensor in same.tensors) or same.sizes != writer.sizes:
            arguments = None
        else:
            names = {f"t{index}": Value(references[id(tensor)]) for index, tensor in enumerate(same.tensors)}
            sizes = {f"s{index}": Value(f"s{index}") for index in range(len(same.sizes))}
            arguments = substitute_references(arguments, names | sizes)
        _mark(events, Event(path, True, written, arguments), writer.tensors, writer.sizes)

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not calls.leave(path):
            return output
        inputs = {id(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        passed: list[int] = []

        def copy_of_input(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or id(leaf) not in inputs:
                return leaf
            copy = torch.ops.aten.alias.default(leaf)
            passed.append(id(copy))
            return copy

        output = pytree.tree_map(copy_of_input, output)
        writer = _Writer()
        leaves = tuple(
            writer.write(leaf).name if isinstance(leaf, Tensor | torch.SymInt) else None
            for leaf in pytree.tree_leaves(output)
        )
        copies = frozenset(f"t{index}" for index, tensor in enumerate(writer.tensors) if id(tensor) in passed)
        written, again = _written(output)
        same = again is not None and [*map(id, again.tensors)] == [*map(id, writer.tensors)]
        _mark(events, Event(path, False, written if same else None, None, leaves, copies), writer.tensors, writer.sizes)
        return output

    return enter, leave


def arguments_by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by the names of the parameters, with defaults filled in."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _mark(events: dict[int, Event], event: Event, tensors: list[Tensor], sizes: list[torch.SymInt]) -> None:
    events[len(events)] = event
    BOUNDARY(tensors, sizes, len(events) - 1)


def substitute_references(value: Any, replacements: Mapping[str, Any]) -> Any:
    """Replace the references in plain data, by their names."""
    return pytree.tree_map(
        lambda leaf: replacements[leaf.name] if isinstance(leaf, Value) else leaf,
        value,
        is_leaf=lambda leaf: isinstance(leaf, Value),
    )


def read_recording(program: Program, events: Mapping[int, Event], is_fixed: bool) -> Recording:
    """Read the calls from the boundaries in a program.

    Args:
        program: with its boundaries.
        events: what happens at each.
        is_fixed: whether the program is right for the lengths of the example alone.

    Raises:
        UnsupportedCodeError: they are not properly nested.
    """
    root = RecordedCall("", None, None)
    stack = [root]
    copies: set[str] = set()
    for node in program.nodes:
        if node.op != "call_function":
            continue
        if node.target is not BOUNDARY:
            stack[-1].body.append(node)
            continue
        event, values = events[int(node.args[2])], _values(node)  # type: ignore[arg-type]
        if event.enters:
            call = RecordedCall(
                event.path, substitute_references(event.arguments, values), substitute_references(event.bound, values)
            )
            stack[-1].body.append(call)
            stack.append(call)
            continue
        call = stack.pop()
        if call.path != event.path or not stack:
            raise UnsupportedCodeError("its calls are not properly nested")
        call.output = substitute_references(event.arguments, values)
        call.results = tuple(_name(values[leaf]) if leaf else None for leaf in event.leaves)
        copies.update(values[name].name for name in event.passed)
    calls = [call for call in root.body if isinstance(call, RecordedCall)]
    if len(stack) > 1 or len(calls) != 1:
        raise UnsupportedCodeError("its calls are not properly nested")
    return Recording(calls[0], program, frozenset(copies), is_fixed)


def _values(node: Node) -> dict[str, Any]:
    """Map the names in an event to the nodes of its boundary; a fixed size is a number."""
    tensors, sizes = node.args[:2]
    assert isinstance(tensors, list | tuple) and isinstance(sizes, list | tuple)
    named = {f"t{index}": value for index, value in enumerate(tensors)}
    named |= {f"s{index}": value for index, value in enumerate(sizes)}
    return {name: Value(value.name) if isinstance(value, Node) else value for name, value in named.items()}


def _name(value: Any) -> str | None:
    return value.name if isinstance(value, Value) else None


def calls_of(call: RecordedCall) -> Iterator[RecordedCall]:
    """Return a call and all calls within it."""
    yield call
    for inner in call.body:
        if isinstance(inner, RecordedCall):
            yield from calls_of(inner)
