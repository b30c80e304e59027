"""Operators of exported programs: those on tensors, those on numbers, and those that torch omits."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node


def _no_padding(node: Node) -> list[Any]:
    """Return the arguments of a padding by zero."""
    widths = node.args[1]
    assert isinstance(widths, list | tuple)
    return [[0] * len(widths), *node.args[2:]]


# Operators that torch leaves out where they change nothing: what makes them so, behind their input.
OPTIONAL: Mapping[Any, Callable[[Node], list[Any]]] = {
    torch.ops.aten.pad.default: _no_padding,
    torch.ops.aten.constant_pad_nd.default: _no_padding,
    torch.ops.aten.clone.default: lambda node: [],
    torch.ops.aten.contiguous.default: lambda node: [],
    torch.ops.aten.slice.Tensor: lambda node: [node.args[1] if len(node.args) > 1 else 0, 0, sys.maxsize],
}


def gives_tensors(node: Node) -> bool:
    """Return whether a node gives tensors, not numbers or nothing."""
    if node.op == "get_attr":
        return True
    return node.op == "call_function" and not gives_numbers(node)


def gives_numbers(node: Node) -> bool:
    """Return whether a node gives a number, or nothing, as assertions do."""
    value = node.meta.get("val")
    if value is None:
        return "assert" in node.name or "sym_constrain" in node.name
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool)


def is_numeric_node(value: Any) -> bool:
    """Return True for a plain number or a node that gives one."""
    return is_plain_number(value) or (isinstance(value, Node) and value.op == "call_function" and gives_numbers(value))


def is_plain_number(value: Any) -> bool:
    """Return True for an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def positional_arguments(node: Node, length: int) -> list[Any]:
    """Return the first `length` arguments of a call, with defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    further = [] if schema is None else [arg.default_value for arg in schema.arguments[len(node.args) : length]]
    return [*node.args, *further]


def keyword_argument(node: Node, name: str) -> Any:
    """Return a keyword argument of a call, or its default."""
    schema = getattr(node.target, "_schema", None)
    defaults = {} if schema is None else {arg.name: arg.default_value for arg in schema.arguments}
    return node.kwargs.get(name, defaults.get(name))
