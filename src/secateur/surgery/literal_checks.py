"""Checks of the numbers that a recipe changes in the programs of modules."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from secateur.files.records import check_stored
from secateur.graph.module_program import WHOLE

MOST_ENTRIES = 2**31


def check_literals(model: nn.Module, literals: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Check the numbers of a program.

    Raises:
        StorageError: the program has no such numbers, or a cut can't change them so.
    """
    check_stored(
        not literals or isinstance(model, fx.GraphModule), "numbers of a program are changed, but this is a model"
    )
    nodes = {node.name: node for node in model.graph.nodes} if isinstance(model, fx.GraphModule) else {}
    for operator, arguments in literals.items():
        check_stored(operator in nodes, f"the program has no operator {operator}")
        for name, positions in arguments.items():
            old_value = _argument_of(nodes[operator], name)
            for position, value in positions.items():
                is_whole = position == WHOLE and len(positions) == 1
                index = int(position) if position.isdecimal() and len(position) < 4 else -1
                is_listed = isinstance(old_value, list | tuple) and 0 <= index < len(old_value)
                old = old_value if is_whole else old_value[index] if is_listed else None
                check_stored(
                    can_become(old, value),
                    f"no cut makes {name} of {operator} {value}, where it is {old}",
                )


def can_become(old: Any, new: int) -> bool:
    """Return whether a cut can replace one number of a program by the other: fewer entries, or -1 for inferred lengths.

    An amount that crops is negative, so that fewer are nearer to zero.
    """
    if old == -1 or new == -1:
        return isinstance(old, torch.fx.Node) or (type(old) is int and -1 <= new < MOST_ENTRIES)
    return type(old) is int and min(old, 0) <= new <= max(old, 0)


def _argument_of(node: torch.fx.Node, name: str) -> Any:
    """Return an argument of an operator in the program."""
    if name in node.kwargs:
        return node.kwargs[name]
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    index = names.index(name) if name in names else len(node.args)
    return node.args[index] if index < len(node.args) else None


def are_equal_literals(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of one type; lists count as tuples."""
    one, other = (tuple(value) if isinstance(value, list | tuple) else value for value in (one, other))
    return type(one) is type(other) and bool(one == other)
