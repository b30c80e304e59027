"""Label rules of operators that pick, sort or scan along an axis: no units may lie there, elsewhere they pass."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.labels import Labels, Weight, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.literals import slice_bounds
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import map_labels, narrow_axes

PICKED = "is picked from by an index"


def _source(op: OpContext) -> Tensor:
    return op.activation("self" if "self" in op.args else "input")


def gather(op: OpContext) -> Tensor:
    """Pick entries of one axis by their numbers, which may differ elsewhere."""
    labels, dim = _source(op), op.args["dim"] % len(op.shape)
    index = op.args["index"]
    units = labelled_axes(labels)
    has_own_units = isinstance(index, Tensor) and labelled_axes(index) == units and dim not in units
    if not has_own_units and not _is_free_of_units(op, index):
        op.freeze(index, "is a position, not a value")
    if dim in units:
        op.freeze(labels, PICKED)
        return frozen_labels(op.shape)
    picked_labels = labels.narrow(dim, 0, 1)
    shape = [1 if at == dim else length for at, length in enumerate(op.shape)]
    picked_labels = picked_labels[tuple(slice(0, length) for length in shape)].expand(op.shape)
    if has_own_units:  # each unit picks from its own entries, by their order, say
        op.couple(index, picked_labels)
    return picked_labels


def _is_free_of_units(op: OpContext, index: Labels) -> bool:
    """Return whether an index is a buffer, or the same along what it was repeated over: no units move it."""
    return isinstance(index, Weight) or not bool(op.tracer.without_unmatched(index).any())


def index_tensors(op: OpContext) -> Any:
    """Pick entries by index tensors: labels pass that do not differ along the axes that are picked from."""
    value: Labels = op.args["self"]
    picked_axes = {dim for dim, index in enumerate(op.args["indices"]) if index is not None}
    if picked_axes != set(range(min(picked_axes), max(picked_axes) + 1)):
        op.freeze(value, PICKED)
        return op.frozen()
    narrow_labels = narrow_axes(op, value, picked_axes, PICKED)
    for key in narrow_labels.keys if isinstance(narrow_labels, Weight) else ():
        op.tracer.touch(key, produces=True)
    index_rank = len(op.shape) - (len(value.shape) - len(picked_axes))
    shape = [*value.shape[: min(picked_axes)], *[1] * index_rank, *value.shape[max(picked_axes) + 1 :]]
    return map_labels(narrow_labels, lambda labels: labels.reshape(shape).expand(op.shape))


def scan(op: OpContext) -> Any:
    """Freeze units along the axis of a cumulative sum or of sorting."""
    labels = _source(op)
    shapes = (op.shape,) if isinstance(op.shape, torch.Size) else tuple(op.shape)
    dim = op.args.get("dim", -1)
    if dim is not None and dim % labels.dim() in labelled_axes(labels):
        op.freeze(labels, f"{'sorted' if len(shapes) > 1 else 'summed up'} along these units")
        return op.frozen()
    narrow_labels = labels.narrow(dim, 0, 1) if dim is not None else labels
    results = tuple(narrow_labels.expand(shape) for shape in shapes)
    return results[0] if isinstance(op.shape, torch.Size) else results


def difference(op: OpContext) -> Any:
    """Freeze units along the axis along which neighbours are subtracted."""
    labels, dim = _source(op), op.args["dim"]
    edges = [op.args[name] for name in ("prepend", "append") if op.args[name] is not None]
    if edges or dim % labels.dim() in labelled_axes(labels):
        return freeze_arguments(op, "is subtracted from its neighbours")
    return labels.narrow(dim, 0, 1).expand(op.shape)


def choice(op: OpContext) -> Any:
    """Note a choice among experts, of which absent ones are the smallest; freeze other units that are chosen from."""
    labels, dim = _source(op), op.args["dim"] % len(op.shape[0])
    if dim not in labelled_axes(labels):
        return tuple(labels.narrow(dim, 0, 1).expand(shape) for shape in op.shape)
    if op.tracer.scope.stack_lengths:
        op.tracer.experts.choices.append((op.node, op.axis_labels(labels, dim), op.args["k"]))
    else:
        op.freeze(labels, "is chosen from by size")
    return op.frozen()


def triangle(op: OpContext) -> Labels:
    """Freeze units along the last two axes, where one half of a matrix has fixed positions."""
    labels = _source(op)
    if labelled_axes(labels) & {labels.dim() - 1, labels.dim() - 2}:
        op.freeze(labels, "keeps entries at fixed places")
    return labels


def repeat_interleave(op: OpContext) -> Any:
    """Give each repetition of an entry the label of the entry."""
    labels, dim = _source(op), op.args.get("dim")
    times = op.args["repeats"]
    if not isinstance(times, int) or dim is None:
        return freeze_arguments(op, "is repeated by numbers that are computed")
    if dim % labels.dim() not in labelled_axes(labels):
        return labels.narrow(dim, 0, 1).expand(op.shape)
    return labels.repeat_interleave(times, dim)


def replace_slice(op: OpContext) -> Tensor:
    """Couple what is written to a slice of a tensor with the entries that it replaces."""
    source, dim = op.args["src"], op.args["dim"]
    axes = labelled_axes(source) if isinstance(source, Tensor) else None
    labels = op.tracer.activation(op.args["self"], op.node, axes)
    if "index" in op.args:
        op.couple(labels, labels.narrow(dim, 0, 1))
        replaced_labels = labels.select(dim, op.args["index"])
    else:
        start, end, step = op.args["start"] or 0, op.args["end"], op.args.get("step", 1)
        replaced_labels = labels[(slice(None),) * (dim % labels.dim()) + (slice(start, end, step),)]
    op.couple(replaced_labels, op.tracer.activation(source, op.node, labelled_axes(replaced_labels)))
    return labels


RULES: RuleTable = {
    "gather": OpRule(gather),
    "index": OpRule(index_tensors),
    "topk": OpRule(choice),
    "cumsum cumprod logcumsumexp cummax cummin sort argsort": OpRule(scan),
    "diff": OpRule(difference),
    "tril triu": OpRule(triangle),
    "repeat_interleave": OpRule(repeat_interleave),
    "select_scatter": OpRule(replace_slice),
    "slice_scatter": OpRule(replace_slice, literals=slice_bounds),
}
