"""Numbers in the calls of two exports, and their values at other sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from secateur.graph.export_operators import gives_tensors
from secateur.graph.input_shapes import Sizes, evaluate_length
from secateur.graph.program import Program
from secateur.graph.resized_calls import Inserted, Scaled


class MismatchError(Exception):
    """The error for two exports with different operators."""


@dataclass(frozen=True)
class Number:
    """A number, or an operator that computes one, at the same position of two calls.

    Args:
        first, other: of the first export and of the other.
    """

    first: Any
    other: Any


def matched_number(number: Number, points: Sequence[Sizes], computed_numbers: Sequence[Mapping[Node, Any]]) -> Any:
    """Return the replacement for a number of the first export.

    Raises:
        MismatchError: there is no such thing.
    """
    first, other = number.first, number.other
    expected_values = [
        evaluate_length(other.meta["val"] if isinstance(other, Node) else other, point) for point in points
    ]
    if not isinstance(first, Node):
        if any(value != expected_values[0] for value in expected_values):
            raise MismatchError(f"{other} there depends on the batch size")
        return first if expected_values[0] == first else expected_values[0]
    computed_values = [values.get(first) for values in computed_numbers]
    if computed_values == expected_values:
        return first
    if all(value == expected_values[0] for value in expected_values):
        return expected_values[0]
    if not all(isinstance(value, int) and value for value in (*expected_values, *computed_values)):
        raise MismatchError(f"{first.name} is no count of entries")
    numerator, denominator = int(expected_values[0]), int(computed_values[0] or 1)
    if any(a * denominator != (b or 0) * numerator for a, b in zip(expected_values, computed_values, strict=True)):
        raise MismatchError(f"{first.name} depends on the batch size in another way")
    return Scaled(first, numerator, denominator)


@dataclass(frozen=True)
class SettledNumbers:
    """Values for the numbers in the merged calls of two exports.

    Args:
        points: the sizes of the other export, at several batch sizes where the batch size may differ.
        computed_numbers: the numbers that operators of the first export compute at each of these points.
    """

    points: Sequence[Sizes]
    computed_numbers: Sequence[Mapping[Node, Any]]

    def settle(self, value: Any) -> Any:
        """Return an argument with a value in place of each number.

        Raises:
            MismatchError: a number depends on the batch size in another way.
        """
        if isinstance(value, Number):
            return matched_number(value, self.points, self.computed_numbers)
        if isinstance(value, Inserted):
            kwargs = {name: self.settle(nested) for name, nested in value.kwargs.items()}
            return Inserted(value.target, tuple(map(self.settle, value.args)), kwargs)
        if isinstance(value, list | tuple):
            return type(value)(map(self.settle, value))
        return value


def computed_numbers(first: Program, originals: Mapping[Node, Node], sizes: Sizes) -> dict[Node, Any]:
    """Compute the values of the first export's operators on numbers.

    Args:
        first: the program of the first export.
        originals: the nodes of the other export, by those of the first that they are paired with.
        sizes: the sizes of the other export.
    """
    values: dict[Node, Any] = {}
    for node in first.nodes:
        if node.op != "call_function" or gives_tensors(node):
            continue
        if node.target is torch.ops.aten.sym_size.int:
            source, axis = node.args
            values[node] = evaluate_length(originals[source].meta["val"].shape[axis], sizes)  # type: ignore[index]
        elif all(used in values for used in node.all_input_nodes) and callable(node.target):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return values
