"""Numbers written into the program that count entries along an axis, and so change when units go.

One table: operator -> which of its arguments are such numbers, and the labels of the entries that each one counts.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.grouped_convolutions import goes_in_groups
from secateur.coupling.label_tracer import Labels, Weight, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.graph.operators import arguments, operator_name


@dataclass(frozen=True, eq=False)
class ShapeLiteral:
    """A number in an operator's arguments that counts entries along an axis.

    Args:
        node: the operator.
        argument: the argument's name.
        position: its place in the argument where that is a list, else None.
        units: the units of each entry that is counted (entries, units of each); an entry goes when all of its go.
        computed: the number is computed in the program, from the batch size say: -1 lets torch find it anew.
        from_end: the number is negative: it counts from the end, or entries that a padding takes away.
        inferred: of a computed number, the places beside it where the code itself has -1, as only one may, with the
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
        """The same number, of entries whose units have other numbers."""
        inferred = tuple((position, units(labels)) for position, labels in self.inferred)
        return replace(self, units=units(self.units), inferred=inferred)

    def values(self, mask: Tensor) -> dict[int | None, int]:
        """What is to be written, by its place in the argument, where `mask` says which units stay."""
        others: dict[int | None, int] = {position: _left(units, mask) for position, units in self.inferred}
        return {self.position: self.value(mask), **others}

    def left(self, mask: Tensor) -> int:
        """How many entries are left where `mask` says which units stay."""
        return _left(self.units, mask)

    def value(self, mask: Tensor) -> int:
        """What is to be written in place of the number."""
        if self.computed:
            return -1
        left = self.left(mask)
        if self.argument == "pad":
            return -left if self.from_end else left
        return left if not self.from_end else -left if left else sys.maxsize


def _left(units: Tensor, mask: Tensor) -> int:
    return int(mask[units].any(1).sum())


Found = tuple[str, int | None, Tensor]
Finder = Callable[[OpContext, Any], Iterator[Found]]


def shape_literals_of(call: OpContext, result: Any) -> Iterator[ShapeLiteral]:
    """The sizes among an operator's arguments, with labels in place of units."""
    finder = SHAPE_LITERALS.get(operator_name(call.node))
    if finder is None:
        return
    written = arguments(call.node)
    places = list(finder(call, result))
    for argument, position, labels in places:
        value = written.get(argument)
        number = value[position] if position is not None and isinstance(value, list | tuple) else value
        if not bool(labels.any()):
            continue
        if isinstance(number, Node):
            inferred = tuple(_inferred(call.node, value, places))
            yield ShapeLiteral(call.node, argument, position, labels, computed=True, inferred=inferred)
        elif isinstance(number, int) and abs(number) == len(labels):
            yield ShapeLiteral(call.node, argument, position, labels, from_end=number < 0)


def repeats(node: Node, dim: int, units: Tensor) -> Iterator[ShapeLiteral]:
    """How often an operand of an operator is repeated, along an axis counted from the end where others have units."""
    for used in node.all_input_nodes:
        while operator_name(used) in ("clone", "contiguous", "to"):
            used = used.all_input_nodes[0]
        if operator_name(used) == "expand":
            written: Any = arguments(used)["size"]
            position = len(written) + dim
            if position >= 0 and isinstance(written[position], int) and written[position] == len(units):
                yield ShapeLiteral(used, "size", position, units[:, None])


def _inferred(node: Node, value: Any, places: list[Found]) -> Iterator[tuple[int, Tensor]]:
    """Where a list of numbers has -1, if the length there is the same for every batch."""
    lengths = node.meta["val"].shape
    for _, position, labels in places:
        if position is not None and value[position] == -1 and isinstance(lengths[position], int):
            yield position, labels


def _entries(value: Labels, dim: int) -> Tensor:
    """The labels of the entries along an axis. (length, labels of each)"""
    layer = _layer(value, dim) if isinstance(value, Weight) else value
    narrow = squeeze_expanded(layer, keep=dim)
    return narrow.movedim(dim, 0).reshape(narrow.shape[dim % narrow.dim()], -1)


def _layer(weight: Weight, dim: int) -> Tensor:
    return next((layer for layer in weight.layers if dim in labelled_axes(layer)), torch.zeros_like(weight.layers[0]))


def _shape(argument: str) -> Finder:
    """The result's shape is written into the program."""

    def finder(call: OpContext, result: Any) -> Iterator[Found]:
        for dim in range(len(call.shape)):
            yield argument, dim, _entries(result, dim)

    return finder


def _unflattened(call: OpContext, result: Any) -> Iterator[Found]:
    source = call.args["self"]
    first = call.args["dim"] % len(source.shape)
    for position in range(len(call.args["sizes"])):
        yield "sizes", position, _entries(result, first + position)


def _slice(call: OpContext, result: Any) -> Iterator[Found]:
    dim = call.args["dim"] % len(call.shape)
    entries = _entries(call.args["self"], dim)
    for argument in ("start", "end"):
        bound = call.args.get(argument)
        if isinstance(bound, int) and abs(bound) <= len(entries):
            yield argument, None, entries[:bound] if bound >= 0 else entries[bound:]


def _narrow(call: OpContext, result: Any) -> Iterator[Found]:
    dim = call.args["dim"] % len(call.shape)
    yield "start", None, _entries(call.args["self"], dim)[: call.args["start"]]
    yield "length", None, _entries(result, dim)


def _parts(call: OpContext, result: Any) -> Iterator[Found]:
    dim = call.args.get("dim", 0)
    for position, part in enumerate(result):
        yield "split_sizes", position, _entries(part, dim)


def _equal_parts(call: OpContext, result: Any) -> Iterator[Found]:
    yield "split_size", None, _entries(result[0], call.args.get("dim", 0))


def _normalised(call: OpContext, result: Any) -> Iterator[Found]:
    length = len(call.args["normalized_shape"])
    for position in range(length):
        yield "normalized_shape", position, _entries(result, len(call.shape) - length + position)


def _padding(call: OpContext, result: Any) -> Iterator[Found]:
    """Entries that are put before and behind an axis, or taken away there: the last axis first."""
    rank = len(call.shape)
    for position, amount in enumerate(call.args["pad"]):
        dim = rank - 1 - position // 2
        padded = call.activation("self") if amount < 0 else result
        entries, count = _entries(padded, dim), abs(amount)
        yield "pad", position, entries[len(entries) - count :] if position % 2 else entries[:count]


def _norm_groups(call: OpContext, result: Any) -> Iterator[Found]:
    if call.args["num_groups"] > 1:
        yield "num_groups", None, _entries(result, 1).view(call.args["num_groups"], -1)


def _convolution_groups(call: OpContext, result: Any) -> Iterator[Found]:
    """Groups that go whole."""
    groups, per_group = call.args["groups"], call.args["weight"].shape[1]
    dim = len(call.shape) - len(call.args["weight"].shape) + 1
    transposed = "transpose" in operator_name(call.node)
    if groups > 1 and (transposed or goes_in_groups(groups, per_group)):
        yield "groups", None, _entries(result, dim).reshape(groups, -1)


SHAPE_LITERALS: Mapping[str, Finder] = {
    "view": _shape("size"),
    "_unsafe_view": _shape("size"),
    "reshape": _shape("shape"),
    "expand": _shape("size"),
    "repeat": _shape("repeats"),
    "broadcast_to": _shape("size"),
    "zeros": _shape("size"),
    "ones": _shape("size"),
    "full": _shape("size"),
    "empty": _shape("size"),
    "new_zeros": _shape("size"),
    "new_ones": _shape("size"),
    "new_full": _shape("size"),
    "new_empty": _shape("size"),
    "unflatten": _unflattened,
    "slice": _slice,
    "slice_scatter": _slice,
    "narrow": _narrow,
    "split_with_sizes": _parts,
    "split": _equal_parts,
    "pad": _padding,
    "constant_pad_nd": _padding,
    "layer_norm": _normalised,
    "rms_norm": _normalised,
    "group_norm": _norm_groups,
    "conv1d": _convolution_groups,
    "conv2d": _convolution_groups,
    "conv3d": _convolution_groups,
    "conv_transpose1d": _convolution_groups,
    "conv_transpose2d": _convolution_groups,
    "conv_transpose3d": _convolution_groups,
}
