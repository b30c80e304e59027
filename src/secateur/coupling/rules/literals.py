"""Arguments of operators that count entries along an axis: sizes, bounds of slices, lengths, groups."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from secateur.coupling.grouped_convolutions import removes_whole_groups
from secateur.coupling.labels import Labels, Weight, frozen_labels, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.op_rule import LiteralAxis, LiteralRule
from secateur.graph.operators import operator_name


def entry_labels(value: Labels, dim: int) -> Tensor:
    """Return the labels of the entries along an axis, (length, labels of each)."""
    labels = _labels_along(value, dim) if isinstance(value, Weight) else value
    narrow_labels = squeeze_expanded(labels, keep=dim).movedim(dim, 0)
    length = narrow_labels.shape[0]
    if length > 1 and narrow_labels.stride(0) == 0:  # along batch or positions: kept once for all entries
        return narrow_labels[:1].reshape(1, -1).expand(length, -1)
    return narrow_labels.reshape(length, -1)


def _labels_along(weight: Weight, dim: int) -> Tensor:
    return next((labels for labels in weight.labels if dim in labelled_axes(labels)), frozen_labels(weight.shape))


def result_shape(argument: str) -> LiteralRule:
    """Return the rule of an operator with the result's shape, or its last axes, in one of its arguments."""

    def shape_axes(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
        count = len(op.args.get(argument, op.shape))
        for position in range(count):
            yield argument, position, entry_labels(result, len(op.shape) - count + position)

    return shape_axes


def unflattened_sizes(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the sizes of the axes that an axis is divided into."""
    first = op.args["dim"] % len(op.args["self"].shape)
    for position in range(len(op.args["sizes"])):
        yield "sizes", position, entry_labels(result, first + position)


def slice_bounds(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield start and end of a slice; the start of one in steps says which entry of each step it takes."""
    dim = op.args["dim"] % len(op.shape)
    if isinstance(result, Tensor) and not bool(result.any()):
        return  # no units are in the slice, whatever lies beside it
    entries = entry_labels(op.args["self"], dim)
    for argument in ("start", "end") if op.args.get("step", 1) == 1 else ("end",):
        bound = op.args.get(argument)
        if isinstance(bound, int) and abs(bound) <= len(entries):
            yield argument, None, entries[:bound] if bound >= 0 else entries[bound:]


def narrow_bounds(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield start and length of a narrowed axis."""
    dim = op.args["dim"] % len(op.shape)
    yield "start", None, entry_labels(op.args["self"], dim)[: op.args["start"]]
    yield "length", None, entry_labels(result, dim)


def split_sizes(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the size of each piece of a split."""
    dim = op.args.get("dim", 0)
    for position, piece in enumerate(result):
        yield "split_sizes", position, entry_labels(piece, dim)


def split_size(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the size that all pieces of a split have."""
    yield "split_size", None, entry_labels(result[0], op.args.get("dim", 0))


def normalized_shape(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the sizes of the axes that a norm normalises over."""
    length = len(op.args["normalized_shape"])
    for position in range(length):
        yield "normalized_shape", position, entry_labels(result, len(op.shape) - length + position)


def padding_amounts(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the entries that are put before and behind an axis, or removed there: the last axis first."""
    rank = len(op.shape)
    for position, amount in enumerate(op.args["pad"]):
        dim = rank - 1 - position // 2
        padded_labels = op.activation("self") if amount < 0 else result
        entries, count = entry_labels(padded_labels, dim), abs(amount)
        yield "pad", position, entries[len(entries) - count :] if position % 2 else entries[:count]


def norm_groups(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the number of groups of a group norm, which are removed whole."""
    if op.args["num_groups"] > 1:
        yield "num_groups", None, entry_labels(result, 1).view(op.args["num_groups"], -1)


def convolution_groups(op: OpContext, result: Any) -> Iterator[LiteralAxis]:
    """Yield the number of groups of a convolution where groups are removed whole."""
    groups, per_group = op.args["groups"], op.args["weight"].shape[1]
    dim = len(op.shape) - len(op.args["weight"].shape) + 1
    is_transposed = "transpose" in operator_name(op.node)
    if groups > 1 and (is_transposed or removes_whole_groups(groups, per_group)):
        yield "groups", None, entry_labels(result, dim).reshape(groups, -1)
