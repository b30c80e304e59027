"""Operators that write to their inputs, and operators that return a view of an input."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from secateur.graph.operators import arguments, operator_name

COMPARISONS = {"eq", "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_xor", "logical_not"}


def without_dropouts(exported: ExportedProgram) -> None:
    """Remove idle dropouts, which return their input's own memory and which decompositions do not handle."""
    for node in list(exported.graph.nodes):
        if _is_idle_dropout(node) and all(user.op != "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)


def _is_idle_dropout(node: Node) -> bool:
    if node.op != "call_function" or "dropout" not in operator_name(node) or not isinstance(node.args[0], Node):
        return False
    return arguments(node).get("train") is False


def is_mutable(node: Node) -> bool:
    """Return whether an operator writes to one of its inputs."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def writes_where_seen(node: Node) -> bool:
    """Return whether a write could be observed through an alias, or a submodule hides operators."""
    if node.op == "get_attr":
        return True
    if not is_mutable(node):
        return False
    target = node.args[0]
    if not isinstance(target, Node) or functional(node) is None or _changes_type(node):
        return True
    while is_alias(target):
        target = target.args[0]
        if not isinstance(target, Node):
            return True
    return target.op == "placeholder" or any(not user < node for user in _others(target, node))


def _changes_type(node: Node) -> bool:
    """Return whether the functional operator would give another type than the tensor that is written to.

    Masks are boolean, which is no type that others are promoted to.
    """
    first_value, *other_values = node.args
    assert isinstance(first_value, Node)
    target_dtype = first_value.meta["val"].dtype
    types = {
        value.meta["val"].dtype
        for value in other_values
        if isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor) and value.meta["val"].dim()
    }
    return bool(types - {target_dtype, torch.bool}) or operator_name(node).rstrip("_") in COMPARISONS


def is_alias(node: Node) -> bool:
    """Return whether an operator returns the memory of its first argument, or a view of it."""
    if node.target is operator.getitem:  # one of several results has memory of its own, unless all are views
        source = node.args[0]
        return isinstance(source, Node) and is_alias(source)
    if _is_idle_dropout(node):
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)


def _others(target: Node, node: Node) -> Iterator[Node]:
    """Yield all uses of some memory through any alias, except uses of the new value after the write."""
    for user in target.users:
        if user is not node:
            yield user
            if is_alias(user):
                yield from _others(user, node)


def functional(node: Node) -> Any:
    """Return the functional counterpart of an operator that writes, None if there is none."""
    name = node.target._schema.name.split("::")[1]  # type: ignore[union-attr]
    overload = node.target._schema.overload_name or "default"  # type: ignore[union-attr]
    return getattr(getattr(torch.ops.aten, name.removesuffix("_"), None), overload, None)
