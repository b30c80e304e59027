"""The calls of a program's operators with numbers for other sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Node


@dataclass(frozen=True)
class Scaled:
    """A number that the first export computes from the batch, times a fraction."""

    node: Node
    numerator: int
    denominator: int

    def value(self, values: Mapping[Node, Any]) -> int:
        """Return the number for the values of the nodes."""
        return int(values[self.node] * self.numerator // self.denominator)


@dataclass(frozen=True)
class Inserted:
    """A value behind an operator that the first export lacks, because it changes nothing at its sizes.

    Args:
        target: the operator.
        args: its arguments; nodes are those of the first export.
        kwargs: those by name.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def source(self) -> Node:
        """The node of the first export whose value the operator changes."""
        source = self.args[0]
        return source.source if isinstance(source, Inserted) else source


@dataclass(frozen=True)
class ResizedCalls:
    """The arguments of a program's operators for inputs of other sizes.

    Args:
        calls: of the operators that are called with other numbers; nodes are those of the program.
        constants: by placeholder.
    """

    calls: Mapping[Node, tuple[tuple[Any, ...], dict[str, Any]]]
    constants: Mapping[Node, Tensor]

    def of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return an operator's arguments, given the values of the nodes."""
        args, kwargs = self.calls.get(node, (node.args, node.kwargs))
        return (
            tuple(self._resolve(value, values) for value in args),
            {name: self._resolve(value, values) for name, value in kwargs.items()},
        )

    def _resolve(self, value: Any, values: Mapping[Node, Any]) -> Any:
        if isinstance(value, Node):
            return self.constants[value] if value in self.constants else values[value]
        if isinstance(value, Scaled):
            return value.value(values)
        if isinstance(value, Inserted):
            kwargs = {name: self._resolve(nested, values) for name, nested in value.kwargs.items()}
            return value.target(*(self._resolve(nested, values) for nested in value.args), **kwargs)
        if isinstance(value, list | tuple):
            return type(value)(self._resolve(nested, values) for nested in value)
        return value
