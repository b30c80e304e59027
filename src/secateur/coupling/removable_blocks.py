"""Blocks of a residual network that add branches to their input, and so can be removed as a whole."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import module_path
from secateur.graph.program import Program


@dataclass(frozen=True, eq=False)
class RemovableBlock:
    """A module whose output is its input plus one or more branches.

    Args:
        path: the module's path.
        branches: for each sum the operator and the name of the argument that is the branch.
    """

    path: str
    branches: tuple[tuple[Node, str], ...]


def find_blocks(program: Program) -> Iterator[RemovableBlock]:
    """Yield the modules that add branches to their input, each to the sum before."""
    sums: defaultdict[str, list[Node]] = defaultdict(list)
    for node in program.nodes:
        if rule_of(node).sums == "add":
            sums[module_path(node)].append(node)
    for path, nodes in sums.items():
        branches = _branches(program, path, nodes) if path else None
        if branches:
            yield RemovableBlock(path, tuple(branches))


def _branches(program: Program, path: str, sums: Sequence[Node]) -> list[tuple[Node, str]] | None:
    """Return the branch of each sum, where the other operand leads back to the module's input; None otherwise."""
    branches: list[tuple[Node, str]] = []
    current: Node | None = None
    for node in sums:
        operands = dict(zip(("self", "other"), node.args, strict=False))
        values = {name: value for name, value in operands.items() if isinstance(value, Node)}
        if len(values) != 2 or any(symbolic_shape(value) != symbolic_shape(node) for value in values.values()):
            continue
        skips = [name for name, value in values.items() if _leads_back(program, value, current, path)]
        if len(skips) != 1:
            return None
        (branch,) = values.keys() - set(skips)
        branches.append((node, branch))
        current = node
    return branches or None


def _leads_back(program: Program, value: Node, current: Node | None, path: str) -> bool:
    """Return whether a value is the sum before, or comes from outside the module; copies of it count as itself."""
    while value is not current and rule_of(value).copies:
        first = value.args[0]
        if not isinstance(first, Node) or not is_within(module_path(value), path):
            break
        value = first
    if current is not None:
        return value is current
    return value not in program.state_names and not is_within(home_path(value), path)


def shares_tensors(program: Program, block: RemovableBlock) -> bool:
    """Return whether operators outside of a block read a parameter or buffer that the program names as one of its."""
    return any(
        is_within(name, block.path) and not is_within(module_path(user), block.path)
        for node, name in program.state_names.items()
        for user in node.users
        if user.op == "call_function"
    )


def home_path(value: Node) -> str:
    """Return the path of the module that computes a value, "" for inputs and parameters."""
    return module_path(value) if value.op == "call_function" else ""


def is_within(name: str, path: str) -> bool:
    """Return whether a module or tensor is the module at a path, or lies within it."""
    return name == path or name.startswith(f"{path}.")


def symbolic_shape(node: Node) -> tuple[str, ...]:
    """Return the shape of an operator's result as the export recorded it, symbols included."""
    return tuple(str(length) for length in getattr(node.meta.get("val"), "shape", ()))
