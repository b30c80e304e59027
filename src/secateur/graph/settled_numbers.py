"""Numbers in the calls of two exports, and what is written in their place at other sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from secateur.graph.input_shapes import Sizes, evaluated
from secateur.graph.resized_calls import Scaled


class MismatchError(Exception):
    """The two exports do not have the same operators."""


@dataclass(frozen=True)
class Number:
    """A number, or an operator that computes one, in the same place of two calls.

    Args:
        first, other: of the first export and of the other.
    """

    first: Any
    other: Any


def settled_number(number: Number, points: Sequence[Sizes], computed: Sequence[Mapping[Node, Any]]) -> Any:
    """What to write in the place of a number of the first export.

    Raises:
        MismatchError: there is no such thing.
    """
    first, other = number.first, number.other
    wanted = [evaluated(other.meta["val"] if isinstance(other, Node) else other, point) for point in points]
    if not isinstance(first, Node):
        if any(value != wanted[0] for value in wanted):
            raise MismatchError(f"{other} there depends on the batch size")
        return first if wanted[0] == first else wanted[0]
    found = [values.get(first) for values in computed]
    if found == wanted:
        return first
    if all(value == wanted[0] for value in wanted):
        return wanted[0]
    if not all(isinstance(value, int) and value for value in (*wanted, *found)):
        raise MismatchError(f"{first.name} is no count of entries")
    numerator, denominator = int(wanted[0]), int(found[0] or 1)
    if any(a * denominator != (b or 0) * numerator for a, b in zip(wanted, found, strict=True)):
        raise MismatchError(f"{first.name} depends on the batch size in another way")
    return Scaled(first, numerator, denominator)
