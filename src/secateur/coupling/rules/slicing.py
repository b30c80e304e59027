"""Label rules of operators that divide an axis, put tensors side by side, or pad an axis."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.coupling.labels import Labels, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.copies import gives_shape_alone
from secateur.coupling.rules.literals import narrow_bounds, padding_amounts, slice_bounds, split_size, split_sizes
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import label_tensors, map_labels
from secateur.coupling.rules.position_axes import is_unpadded, is_unsliced
from secateur.coupling.rules.shape_ops import move, source_labels


def select(op: OpContext) -> Any:
    """Couple the entries of the axis of which one is picked by its number."""
    for labels in label_tensors(source_labels(op)):
        op.couple(labels, labels.narrow(op.args["dim"], 0, 1))
    return move(op)


def split(op: OpContext) -> Any:
    """Couple entries at the same position of each piece where the pieces are equal, so that they remain equal."""
    value = source_labels(op)
    dim = op.args.get("dim", 0)
    unbinds = isinstance(op.shape[0], torch.Size) and len(op.shape[0]) < len(value.shape)
    lengths = [1 if unbinds else shape[dim] for shape in op.shape]
    for labels in label_tensors(value):
        pieces = labels.split(lengths, dim)
        for piece in pieces[1:] if len(set(lengths)) == 1 else ():
            op.couple(pieces[0], piece)

    def split_labels(labels: Tensor) -> tuple[Tensor, ...]:
        pieces = labels.split(lengths, dim)
        return tuple(piece.squeeze(dim) for piece in pieces) if unbinds else tuple(pieces)

    return map_labels(value, split_labels)


def slice_axis(op: OpContext) -> Any:
    """Couple the pieces that a slice is one of, where they are equal; other slices are found by their bounds."""
    value, dim = source_labels(op), op.args["dim"]
    length, size = op.shape[dim], value.shape[dim]
    if length == 1 and gives_shape_alone(op.node) and _units_lie_along(value, dim):
        return frozen_labels(op.shape)  # there is one entry however many units stay
    start = max(op.args["start"] or 0, 0) if (op.args["start"] or 0) >= 0 else size + op.args["start"]
    for labels in label_tensors(value):
        if length == size or dim % labels.dim() not in labelled_axes(labels):
            continue
        if length and size % length == 0 and start % length == 0 and op.args.get("step", 1) == 1:
            pieces = labels.split(length, dim)
            for piece in pieces[1:]:
                op.couple(pieces[0], piece)
        elif op.args.get("step", 1) != 1:
            _couple_steps(op, labels, start)
    return move(op)


def _couple_steps(op: OpContext, labels: Tensor, start: int) -> None:
    """Couple the entries between which a slice in steps skips, where it takes one of each step along the whole axis."""
    dim, step = op.args["dim"] % labels.dim(), op.args["step"]
    if start >= step or labels.shape[dim] != step * op.shape[dim]:
        op.freeze(labels, "is sliced in steps")
        return
    steps = labels.unflatten(dim, (-1, step))
    op.couple(steps, steps.narrow(dim + 1, 0, 1))


def _units_lie_along(value: Labels, dim: int) -> bool:
    """Return whether units lie along one axis alone."""
    return all(labelled_axes(labels) == {dim % labels.dim()} for labels in label_tensors(value))


def concatenate(op: OpContext) -> Tensor:
    """Put labels side by side along the units' axis; along another, couple those at the same position."""
    operands = [value for value in op.args["tensors"] if value.shape != (0,)]
    dim = op.args["dim"] % len(op.shape)
    axes = {axis for value in operands if isinstance(value, Tensor) for axis in labelled_axes(value)}
    values = [op.tracer.activation(value, op.node, axes) for value in operands]
    if len(values[0].shape) < len(op.shape):
        values = [value.unsqueeze(dim) for value in values]
    if not any(labelled_axes(value) - {dim} for value in values):
        return _cat(values, dim, op.shape)
    if any(dim in labelled_axes(value) for value in values):  # halves of each head, say: grouping shows what is removed
        result = torch.cat(values, dim)
        op.tracer.couplings.rectangles.append((op.node, result))
        return result
    tracer = op.tracer
    first_labels = next(value for value in values if bool(tracer.without_unmatched(value).any()) or value is values[-1])
    for value in values:
        op.couple(first_labels.narrow(dim, 0, 1), value.narrow(dim, 0, 1))
    return first_labels.narrow(dim, 0, 1).expand(op.shape)


def _cat(values: list[Tensor], dim: int, shape: torch.Size) -> Tensor:
    """Concatenate labels, and leave the axes along which all of them repeat without memory."""
    repeated_axes = [
        axis
        for axis in range(len(shape))
        if axis != dim and all(value.stride(axis) == 0 or value.shape[axis] == 1 for value in values)
    ]
    for axis in repeated_axes:
        values = [value.narrow(axis, 0, 1) for value in values]
    return torch.cat(values, dim).expand(shape)


def pad(op: OpContext) -> Tensor:
    """Give labels to constants along the units' axis: as many entries as what they meet; elsewhere labels repeat."""
    labels = op.activation("self")
    rank, amounts = labels.dim(), list(op.args["pad"])
    padded_axes = {rank - 1 - index // 2 for index, amount in enumerate(amounts) if amount}
    unit_axes = sorted(labelled_axes(labels) & padded_axes)
    if unit_axes and op.args.get("mode", "constant") != "constant":
        op.freeze(labels, "is padded with copies of these units")
        return F.pad(labels, amounts)
    for dim in padded_axes.difference(unit_axes):
        labels = labels.narrow(dim, 0, 1).expand([*labels.shape[:dim], op.shape[dim], *labels.shape[dim + 1 :]])
    for dim in unit_axes:
        position = 2 * (rank - 1 - dim)
        labels = _pad_axis(op, labels, dim, *amounts[position : position + 2])
    if len(labelled_axes(labels)) > 1:
        op.tracer.couplings.rectangles.append((op.node, labels))
    return labels


def _pad_axis(op: OpContext, labels: Tensor, dim: int, before: int, behind: int) -> Tensor:
    """Put new labels before and behind those along an axis; a negative number removes entries there.

    Where units differ along further axes, such as heads, each of them has constants of its own.
    """
    first, last = max(-before, 0), labels.shape[dim] - max(-behind, 0)
    inner = labels.narrow(dim, first, last - first)

    def margin(name: str, amount: int) -> Tensor:
        shape = [*inner.shape[:dim], max(amount, 0), *inner.shape[dim + 1 :]]
        lengths = [length if axis == dim or axis in labelled_axes(inner) else 1 for axis, length in enumerate(shape)]
        entries = op.tracer.constant_entries(f"%{op.node.name}:{dim}:{name}", math.prod(lengths))
        return entries.reshape(lengths).expand(shape)

    pieces = [margin("before", before), inner, margin("behind", behind)]
    length = sum(piece.shape[dim] for piece in pieces)
    return _cat(pieces, dim, torch.Size([*inner.shape[:dim], length, *inner.shape[dim + 1 :]]))


def couple_gated_halves(op: OpContext) -> Tensor:
    """Couple the two halves of a gated linear unit, entry by entry."""
    first_half, second_half = op.activation("self").chunk(2, op.args["dim"])
    op.couple(first_half, second_half)
    return first_half


RULES: RuleTable = {
    "select": OpRule(select, channels="move"),
    "split_with_sizes": OpRule(split, literals=split_sizes, channels="move"),
    "split": OpRule(split, literals=split_size, channels="move"),
    "chunk unbind tensor_split unsafe_chunk unsafe_split": OpRule(split, channels="move"),
    "slice": OpRule(slice_axis, literals=slice_bounds, keeps_apart=is_unsliced, gates="passes", channels="move"),
    "narrow": OpRule(slice_axis, literals=narrow_bounds, channels="move"),
    "cat concat concatenate": OpRule(concatenate, channels="concatenate"),
    "stack": OpRule(concatenate, channels="move"),
    "pad": OpRule(pad, literals=padding_amounts, keeps_apart=is_unpadded, gates="padding", channels="pad"),
    "constant_pad_nd": OpRule(pad, literals=padding_amounts, gates="padding", channels="pad"),
    "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d": OpRule(pad, channels="pad"),
    "glu": OpRule(couple_gated_halves),
}
