"""How labels pass operators that pick, sort or scan along an axis: no units may lie there, elsewhere they pass."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight, labelled_axes
from secateur.coupling.rules.context import OpContext, tensors

REASON = "is picked from by an index"


def _source(call: OpContext) -> Tensor:
    return call.activation("self" if "self" in call.args else "input")


def gather(call: OpContext) -> Tensor:
    """Entries of one axis by their numbers, which may differ elsewhere."""
    labels, dim = _source(call), call.args["dim"] % len(call.shape)
    index = call.args["index"]
    if isinstance(index, Tensor | Weight) and not _is_made(call, index):
        call.freeze(index, "is a place, not a value")
    if dim in labelled_axes(labels):
        call.freeze(labels, REASON)
        return torch.zeros((), dtype=torch.long).expand(call.shape)
    picked = labels.narrow(dim, 0, 1)
    shape = [1 if at == dim else length for at, length in enumerate(call.shape)]
    return picked[tuple(slice(0, length) for length in shape)].expand(call.shape)


def _is_made(call: OpContext, index: Labels) -> bool:
    """Whether an index is a buffer, or the same along what it was repeated over: no units move it."""
    return isinstance(index, Weight) or not bool(call.trace.stripped(index).any())


def scan(call: OpContext) -> Any:
    """Cumulative sums and sorting, along one axis."""
    labels = _source(call)
    shapes = (call.shape,) if isinstance(call.shape, torch.Size) else tuple(call.shape)
    dim = call.args.get("dim", -1)
    if dim is not None and dim % labels.dim() in labelled_axes(labels):
        call.freeze(labels, f"{'sorted' if len(shapes) > 1 else 'summed up'} along these units")
        return call.frozen()
    narrow = labels.narrow(dim, 0, 1) if dim is not None else labels
    results = tuple(narrow.expand(shape) for shape in shapes)
    return results[0] if isinstance(call.shape, torch.Size) else results


def choice(call: OpContext) -> Any:
    """The largest entries: where experts are chosen, those that are absent are the smallest; otherwise none may go."""
    labels, dim = _source(call), call.args["dim"] % len(call.shape[0])
    if dim not in labelled_axes(labels):
        return tuple(labels.narrow(dim, 0, 1).expand(shape) for shape in call.shape)
    if call.trace.stacked:
        call.trace.choices.append((call.node, call.trace.along(labels, dim, call.node), call.args["k"]))
    else:
        call.freeze(labels, "is chosen from by size")
    return call.frozen()


def triangle(call: OpContext) -> Labels:
    """One half of a matrix: the last two axes have fixed places."""
    labels = _source(call)
    if labelled_axes(labels) & {labels.dim() - 1, labels.dim() - 2}:
        call.freeze(labels, "keeps entries at fixed places")
    return labels


def repeat_interleave(call: OpContext) -> Any:
    """Each entry several times: further entries of the same units."""
    labels, dim = _source(call), call.args.get("dim")
    times = call.args["repeats"]
    if not isinstance(times, int) or dim is None:
        for value in tensors(call.args):
            call.freeze(value, "is repeated by numbers that are computed")
        return call.frozen()
    if dim % labels.dim() not in labelled_axes(labels):
        return labels.narrow(dim, 0, 1).expand(call.shape)
    return labels.repeat_interleave(times, dim)


def scatter_part(call: OpContext) -> Tensor:
    """A part of a tensor is replaced: what is put there goes with what it meets."""
    source, dim = call.args["src"], call.args["dim"]
    along = labelled_axes(source) if isinstance(source, Tensor) else None
    labels = call.trace.activation(call.args["self"], call.node, along)
    if "index" in call.args:
        call.tie(labels, labels.narrow(dim, 0, 1))
        part = labels.select(dim, call.args["index"])
    else:
        start, end, step = call.args["start"] or 0, call.args["end"], call.args.get("step", 1)
        part = labels[(slice(None),) * (dim % labels.dim()) + (slice(start, end, step),)]
    call.tie(part, call.trace.activation(source, call.node, labelled_axes(part)))
    return labels


def grid_sample(call: OpContext) -> Tensor:
    """Channels pass; where they are read from does not depend on them."""
    labels = call.activation("input")
    grid = call.args["grid"]
    if isinstance(grid, Tensor | Weight):
        call.freeze(grid, "is a place, not a value")
    if labelled_axes(labels) - {0, 1}:
        call.freeze(labels, "is sampled at computed places")
        return torch.zeros((), dtype=torch.long).expand(call.shape)
    for dim in range(2, labels.dim()):
        labels = labels.narrow(dim, 0, 1)
    return labels.expand(call.shape)
