"""Copies and casts of parameters in a program, which mixed precision makes before each layer.

A run that goes on from an operator reads such copies among the values of the operators before. They are made again from
the parameters, because repairs change these between two operators.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.program import Program


@dataclass(frozen=True)
class ParameterCopy:
    """A value that holds the entries of a parameter or buffer.

    Args:
        name: the parameter.
        dtype: the type of the value.
    """

    name: str
    dtype: torch.dtype

    def value(self, parameter: Tensor) -> Tensor:
        """Return the value for a parameter."""
        return parameter.to(self.dtype)


def parameter_copies(program: Program) -> dict[Node, ParameterCopy]:
    """Return the operators that copy or cast a parameter or buffer, in the order in which they run."""
    copies: dict[Node, ParameterCopy] = {}
    for node in program.nodes:
        source, value = _copied_value(node), node.meta.get("val")
        if source is not None and isinstance(value, Tensor):
            name = copies[source].name if source in copies else program.state_names.get(source)
            copies |= {} if name is None else {node: ParameterCopy(name, value.dtype)}
    return copies


def sole_parameter(program: Program, value: Node) -> str | None:
    """Return the parameter or buffer that a value is, or is a copy of, if nothing else reads either; None otherwise."""
    source: Node | None = value
    while source is not None and len(source.users) == 1:
        if source in program.state_names:
            return program.state_names[source]
        source = _copied_value(source)
    return None


def _copied_value(node: Node) -> Node | None:
    """Return the value that an operator copies or casts, or None."""
    source = node.args[0] if node.op == "call_function" and node.args and rule_of(node).copies else None
    return source if isinstance(source, Node) else None
