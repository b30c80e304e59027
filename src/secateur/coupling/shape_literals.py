"""Numbers written into the program that count entries along an axis, and so change when units are removed."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments, operator_name


@dataclass(frozen=True, eq=False)
class ShapeLiteral:
    """A number in an operator's arguments that counts entries along an axis.

    Args:
        node: the operator.
        argument: the argument's name.
        position: the number's position in the argument where that is a list, else None.
        units: the units of each entry that is counted (entries, units of each); an entry is removed with all of its
            units.
        computed: the number is computed in the program, from the batch size say: -1 lets torch infer it.
        from_end: the number is negative: it counts from the end, or entries that a padding removes.
        inferred: of a computed number, the positions beside it where the code itself has -1, as only one may, with the
            units of the entries there.
    """

    node: Node
    argument: str
    position: int | None
    units: Tensor
    computed: bool = False
    from_end: bool = False
    inferred: tuple[tuple[int, Tensor], ...] = ()

    def renumbered(self, units: Callable[[Tensor], Tensor]) -> "ShapeLiteral":
        """Return the same number for entries whose units have other numbers."""
        inferred = tuple((position, units(labels)) for position, labels in self.inferred)
        return replace(self, units=units(self.units), inferred=inferred)

    def values(self, mask: Tensor) -> dict[int | None, int]:
        """Return the numbers to write, by their positions in the argument.

        Args:
            mask: which units are kept (units + 1,).
        """
        other_values: dict[int | None, int] = {
            position: _remaining_entries(units, mask) for position, units in self.inferred
        }
        return {self.position: self.value(mask), **other_values}

    def remaining(self, mask: Tensor) -> int:
        """Return how many of the counted entries remain. `mask` holds which units are kept (units + 1,)."""
        return _remaining_entries(self.units, mask)

    def value(self, mask: Tensor) -> int:
        """Return the number to write in place of this one. `mask` holds which units are kept (units + 1,)."""
        if self.computed:
            return -1
        remaining = self.remaining(mask)
        if self.argument == "pad":
            return -remaining if self.from_end else remaining
        return remaining if not self.from_end else -remaining if remaining else sys.maxsize


def _remaining_entries(units: Tensor, mask: Tensor) -> int:
    """Return how many entries, of units (entries, units of each), have units that are kept."""
    return int(mask[squeeze_expanded(units)].any(1).expand(len(units)).sum())


def shape_literals_of(op: OpContext, result: Any) -> Iterator[ShapeLiteral]:
    """Yield the sizes among an operator's arguments, with labels in place of units.

    Args:
        op: the operator.
        result: the labels of its result.
    """
    rule = rule_of(op.node).literals
    if rule is None:
        return
    values = arguments(op.node)
    axes = list(rule(op, result))
    for argument, position, labels in axes:
        value = values.get(argument)
        number = value[position] if position is not None and isinstance(value, list | tuple) else value
        if not bool(labels.any()):
            continue
        if isinstance(number, Node):
            inferred = tuple(_inferred_sizes(op.node, value, axes))
            yield ShapeLiteral(op.node, argument, position, labels, computed=True, inferred=inferred)
        elif isinstance(number, int) and abs(number) == len(labels):
            yield ShapeLiteral(op.node, argument, position, labels, from_end=number < 0)


def _inferred_sizes(
    node: Node, value: Any, axes: Sequence[tuple[str, int | None, Tensor]]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the positions at which a list of sizes has -1, if the length there is the same for every batch."""
    if not isinstance(value, list | tuple) or not isinstance(node.meta["val"], Tensor):  # the size of a split's pieces
        return
    lengths = node.meta["val"].shape
    for _, position, labels in axes:
        if position is not None and value[position] == -1 and isinstance(lengths[position], int):
            yield position, labels


def expanded_sizes(node: Node, dim: int, labels: Tensor) -> Iterator[ShapeLiteral]:
    """Yield the sizes to which operands of an operator are expanded along an axis where others have units.

    Args:
        node: the operator.
        dim: the axis, counted from the end.
        labels: the labels of the others along the axis (size of dim,).
    """
    for operand in node.all_input_nodes:
        while operand.op == "call_function" and rule_of(operand).copies:
            operand = operand.all_input_nodes[0]
        if operator_name(operand) == "expand":
            sizes: Any = arguments(operand)["size"]
            position = len(sizes) + dim
            if position >= 0 and isinstance(sizes[position], int) and sizes[position] == len(labels):
                yield ShapeLiteral(operand, "size", position, labels[:, None])
