"""Numbers in the calls of two exports, and their values at other sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from secateur.graph.input_shapes import Sizes, evaluate_length
from secateur.graph.resized_calls import Scaled


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
