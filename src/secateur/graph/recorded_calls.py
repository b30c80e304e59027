"""The calls of modules in an exported program: where each begins and ends, its arguments and its results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
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
        event, values = events[int(node.args[2])], _boundary_nodes(node)  # type: ignore[arg-type]
        if event.enters:
            _open_call(stack, event, values)
        else:
            _close_call(stack, event, values)
            copies.update(values[name].name for name in event.passed)
    calls = [call for call in root.body if isinstance(call, RecordedCall)]
    if len(stack) > 1 or len(calls) != 1:
        raise UnsupportedCodeError("its calls are not properly nested")
    return Recording(calls[0], program, frozenset(copies), is_fixed)


def _open_call(stack: list[RecordedCall], event: Event, values: Mapping[str, Any]) -> None:
    """Append a call to the body of the innermost one, and push it."""
    arguments, bound = (substitute_references(plain, values) for plain in (event.arguments, event.bound))
    call = RecordedCall(event.path, arguments, bound)
    stack[-1].body.append(call)
    stack.append(call)


def _close_call(stack: list[RecordedCall], event: Event, values: Mapping[str, Any]) -> None:
    """Pop the innermost call, and store its output.

    Raises:
        UnsupportedCodeError: the event is that of another call.
    """
    call = stack.pop()
    if call.path != event.path or not stack:
        raise UnsupportedCodeError("its calls are not properly nested")
    call.output = substitute_references(event.arguments, values)
    call.results = tuple(_name(values[leaf]) if leaf else None for leaf in event.leaves)


def _boundary_nodes(node: Node) -> dict[str, Any]:
    """Map the names in an event to the nodes of its boundary; a fixed size is a number."""
    tensors, sizes = node.args[:2]
    assert isinstance(tensors, list | tuple) and isinstance(sizes, list | tuple)
    tensors_by_name = {f"t{index}": value for index, value in enumerate(tensors)}
    tensors_by_name |= {f"s{index}": value for index, value in enumerate(sizes)}
    return {name: Value(value.name) if isinstance(value, Node) else value for name, value in tensors_by_name.items()}


def _name(value: Any) -> str | None:
    return value.name if isinstance(value, Value) else None


def calls_of(call: RecordedCall) -> Iterator[RecordedCall]:
    """Return a call and all calls within it."""
    yield call
    for inner in call.body:
        if isinstance(inner, RecordedCall):
            yield from calls_of(inner)
