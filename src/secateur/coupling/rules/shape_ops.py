"""How labels pass operators that only move entries: they are executed on the labels themselves."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.coupling.label_tracer import Labels, Weight, broadcast_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.parameter_axes import layerwise, narrowed, with_layers
from secateur.graph.operators import arguments

PICKED = "is picked from by an index"


def _source(call: OpContext) -> Labels:
    value: Labels = call.args["self" if "self" in call.args else "input"]
    return value


def move(call: OpContext) -> Any:
    """Transposes and the like: the operator itself, on labels."""
    target: Any = call.node.target
    others = {name: value for name, value in call.args.items() if name not in ("self", "input")}
    return layerwise(_source(call), lambda labels: target(labels, **others))


def reshape(call: OpContext) -> Any:
    """Any change of shape; what must stay rectangular afterwards is noted for later."""
    value = _source(call)
    if isinstance(value, Tensor):
        result = value.reshape(call.shape)
        call.trace.reshaped.append((call.node, result))
        return result
    return layerwise(value, lambda labels: labels.reshape(call.shape))


def expand(call: OpContext) -> Any:
    """Repetitions; like another tensor's, they are as many as that has units."""
    like = call.args.get("other")
    value = _source(call)
    if isinstance(like, Tensor) and isinstance(value, Tensor) and not labelled_axes(value) and not bool(value.any()):
        grown = {
            dim
            for dim in labelled_axes(like)
            if dim - like.dim() + value.dim() < 0 or value.shape[dim - like.dim()] == 1
        }
        if grown == labelled_axes(like):
            return like
    if isinstance(value, Tensor) and not bool(value.any()):
        return _grown(call, value)
    repeated: Labels = layerwise(value, lambda labels: labels.expand(call.shape))
    if isinstance(repeated, Weight) and call.trace.is_constant(repeated):
        return with_layers(repeated, _grown(call, value))
    return repeated


def _grown(call: OpContext, value: Labels) -> Labels:
    """What has no units is the same all along the axes that are made by repeating it."""
    lead = len(call.shape) - len(value.shape)
    given = arguments(call.node)
    written = given.get("size", given.get("repeats", call.shape))  # without any, it is the shape of another tensor
    axes = [
        dim
        for dim, length in enumerate(call.shape)
        if length > 1 and (dim < lead or value.shape[dim - lead] == 1) and written[dim] == length
    ]
    return call.trace.constant(call.node, call.shape, axes)


def fixed_positions(call: OpContext) -> Any:
    """Operators whose positions mean something else once units are gone: no units along those axes."""
    value = _source(call)
    dims = call.args.get("dims", call.args.get("dim", call.args.get("dimension")))
    dims = [dims] if isinstance(dims, int) else dims or range(len(value.shape))
    for layer in value.layers if isinstance(value, Weight) else (value,):
        if labelled_axes(layer) & {dim % layer.dim() for dim in dims}:
            call.freeze(layer, "moves these units to fixed positions")
    return move(call)


def select(call: OpContext) -> Any:
    """One entry of an axis by its number: the entries of that axis go together."""
    value, dim = _source(call), call.args["dim"]
    for layer in value.layers if isinstance(value, Weight) else (value,):
        call.tie(layer, layer.narrow(dim, 0, 1))
    return move(call)


def parts(call: OpContext) -> Any:
    """An axis in parts: where they are equal, entries at the same place of each go together, so that they stay so."""
    value = _source(call)
    dim = call.args.get("dim", 0)
    unbind = isinstance(call.shape[0], torch.Size) and len(call.shape[0]) < len(value.shape)
    lengths = [1 if unbind else shape[dim] for shape in call.shape]
    for layer in value.layers if isinstance(value, Weight) else (value,):
        pieces = layer.split(lengths, dim)
        for piece in pieces[1:] if len(set(lengths)) == 1 else ():
            call.tie(pieces[0], piece)

    def split(labels: Tensor) -> tuple[Tensor, ...]:
        pieces = labels.split(lengths, dim)
        return tuple(piece.squeeze(dim) for piece in pieces) if unbind else tuple(pieces)

    return layerwise(value, split)


def slice_(call: OpContext) -> Any:
    """A slice that is one of several equal parts is treated as they are; others are found by their bounds."""
    value, dim = _source(call), call.args["dim"]
    length, size = call.shape[dim], value.shape[dim]
    start = max(call.args["start"] or 0, 0) if (call.args["start"] or 0) >= 0 else size + call.args["start"]
    for layer in value.layers if isinstance(value, Weight) else (value,):
        if length == size or dim % layer.dim() not in labelled_axes(layer):
            continue
        if length and size % length == 0 and start % length == 0 and call.args.get("step", 1) == 1:
            pieces = layer.split(length, dim)
            for piece in pieces[1:]:
                call.tie(pieces[0], piece)
        elif call.args.get("step", 1) != 1:
            call.freeze(layer, "is sliced in steps")
    return move(call)


def concatenate(call: OpContext) -> Tensor:
    """Along the units' axis they stand side by side; along another, those at the same place go together."""
    listed = [value for value in call.args["tensors"] if value.shape != (0,)]
    dim = call.args["dim"] % len(call.shape)
    lying = {axis for value in listed if isinstance(value, Tensor) for axis in labelled_axes(value)}
    values = [call.trace.activation(value, call.node, lying) for value in listed]
    if len(values[0].shape) < len(call.shape):
        values = [value.unsqueeze(dim) for value in values]
    if any(labelled_axes(value) - {dim} for value in values):
        if any(
            dim in labelled_axes(value) for value in values
        ):  # halves of each head, say: what goes whole is seen later
            result = torch.cat(values, dim)
            call.trace.reshaped.append((call.node, result))
            return result
        first = next(value for value in values if bool(call.trace.stripped(value).any()) or value is values[-1])
        for value in values:
            call.tie(first.narrow(dim, 0, 1), value.narrow(dim, 0, 1))
        return first.narrow(dim, 0, 1).expand(call.shape)
    return _cat(values, dim, call.shape)


def _cat(values: list[Tensor], dim: int, shape: torch.Size) -> Tensor:
    """`torch.cat` that leaves alone the axes along which all labels repeat."""
    repeated = [
        axis
        for axis in range(len(shape))
        if axis != dim and all(value.stride(axis) == 0 or value.shape[axis] == 1 for value in values)
    ]
    for axis in repeated:
        values = [value.narrow(axis, 0, 1) for value in values]
    return torch.cat(values, dim).expand(shape)


def pad(call: OpContext) -> Tensor:
    """Constants along the units' axis have as many entries as what they meet; elsewhere labels repeat."""
    labels = call.activation("self")
    rank, amounts = labels.dim(), list(call.args["pad"])
    padded = {rank - 1 - index // 2 for index, amount in enumerate(amounts) if amount}
    across = sorted(labelled_axes(labels) & padded)
    if across and call.args.get("mode", "constant") != "constant":
        call.freeze(labels, "is padded with copies of these units")
        return F.pad(labels, amounts)
    for dim in padded.difference(across):
        labels = labels.narrow(dim, 0, 1).expand([*labels.shape[:dim], call.shape[dim], *labels.shape[dim + 1 :]])
    for dim in across:
        place = 2 * (rank - 1 - dim)
        labels = _padded(call, labels, dim, *amounts[place : place + 2])
    if len(labelled_axes(labels)) > 1:
        call.trace.reshaped.append((call.node, labels))
    return labels


def _padded(call: OpContext, labels: Tensor, dim: int, before: int, behind: int) -> Tensor:
    """Labels with new ones before and behind those along an axis; a negative number takes entries away there.

    Where units differ along further axes, such as heads, each of them has constants of its own.
    """
    first, last = max(-before, 0), labels.shape[dim] - max(-behind, 0)
    inner = labels.narrow(dim, first, last - first)

    def side(name: str, amount: int) -> Tensor:
        shape = [*inner.shape[:dim], max(amount, 0), *inner.shape[dim + 1 :]]
        lengths = [length if axis == dim or axis in labelled_axes(inner) else 1 for axis, length in enumerate(shape)]
        entries = call.trace.constant_entries(f"%{call.node.name}:{dim}:{name}", math.prod(lengths))
        return entries.reshape(lengths).expand(shape)

    parts = [side("before", before), inner, side("behind", behind)]
    length = sum(part.shape[dim] for part in parts)
    return _cat(parts, dim, torch.Size([*inner.shape[:dim], length, *inner.shape[dim + 1 :]]))


def repeat(call: OpContext) -> Any:
    """Repetitions of a whole axis of units are further entries of the same units."""
    value = _source(call)
    if isinstance(value, Tensor) and not bool(value.any()):
        return _grown(call, value)
    return layerwise(value, lambda labels: labels.repeat(call.args["repeats"]))


def gated(call: OpContext) -> Tensor:
    """The two halves of a gated linear unit go together, place by place."""
    labels, dim = call.activation("self"), call.args["dim"]
    first, second = labels.chunk(2, dim)
    call.tie(first, second)
    return first


def pixel_shuffle(call: OpContext) -> Tensor:
    """The channels that become one channel's pixels go together."""
    channels = call.trace.along(call.activation("self"), -3, call.node)
    rows = channels.view(call.shape[-3], -1)
    call.tie(rows, rows[:, :1])
    return broadcast_labels(rows[:, 0], -3, call.shape)


def pixel_unshuffle(call: OpContext) -> Tensor:
    """A channel's pixels become several channels, all of one unit."""
    channels = call.trace.along(call.activation("self"), -3, call.node)
    return broadcast_labels(channels.repeat_interleave(call.shape[-3] // len(channels)), -3, call.shape)


def channel_shuffle(call: OpContext) -> Tensor:
    """The same place of every group goes together, so that groups stay equal."""
    channels = call.trace.along(call.activation("self"), 1, call.node)
    rows = channels.view(call.args["groups"], -1)
    call.tie(rows, rows[:1])
    return broadcast_labels(rows.t().reshape(-1), 1, call.shape)


def patches(call: OpContext) -> Tensor:
    """`unfold`: a channel's window becomes several rows, all of one unit."""
    channels = call.trace.along(call.activation("self"), 1, call.node)
    return broadcast_labels(channels.repeat_interleave(call.shape[1] // len(channels)), 1, call.shape)


def from_patches(call: OpContext) -> Tensor:
    """`fold`: the rows of one channel's window go together."""
    channels = call.trace.along(call.activation("self"), 1, call.node)
    rows = channels.view(call.shape[1], -1)
    call.tie(rows, rows[:, :1])
    return broadcast_labels(rows[:, 0], 1, call.shape)


def indexed(call: OpContext) -> Any:
    """Picking entries by index tensors: labels pass that do not differ along the axes that are picked from."""
    value = _source(call)
    picked = {dim for dim, index in enumerate(call.args["indices"]) if index is not None}
    if picked != set(range(min(picked), max(picked) + 1)):
        call.freeze(value, PICKED)
        return call.frozen()
    slim = narrowed(call, value, picked, PICKED)
    for key in slim.keys if isinstance(slim, Weight) else ():
        call.trace.touch(key, produces=True)
    numbered = len(call.shape) - (len(value.shape) - len(picked))
    shape = [*value.shape[: min(picked)], *[1] * numbered, *value.shape[max(picked) + 1 :]]
    return layerwise(slim, lambda labels: labels.reshape(shape).expand(call.shape))
