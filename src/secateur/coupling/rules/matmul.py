"""How labels pass operators that contract over an axis: linear, products, attention, embedding."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight, broadcast_labels, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext, frozen
from secateur.coupling.rules.elementwise import CROSSES, elementwise, fewer
from secateur.coupling.shape_literals import repeats

SHARED = "the same weights serve every unit"
UNLABELLED = torch.zeros((), dtype=torch.long)
CROSSED = "two kinds of units cross"


def linear(call: OpContext) -> Tensor:
    """Reads the last axis; the weight's rows are new units."""
    return _by_weight(call, "input", "weight", contracted=-1, inner=1, outer=0)


def matmul(call: OpContext) -> Tensor:
    """A product of two tensors, of which one may be a parameter."""
    first, second = _operands(call)
    a, b = call.args[first], call.args[second]
    if len(a.shape) < 2 or len(b.shape) < 2:
        return freeze_all(call, "is a product with a vector")
    if isinstance(b, Weight) and math.prod(b.shape[:-2]) == 1:
        return _by_weight(call, first, second, contracted=-1, inner=len(b.shape) - 2, outer=len(b.shape) - 1)
    if isinstance(a, Weight) and math.prod(a.shape[:-2]) == 1:
        made = _by_weight(call, second, first, contracted=-2, inner=len(a.shape) - 1, outer=len(a.shape) - 2)
        return _added(call, made)
    if isinstance(b, Weight) and isinstance(a, Tensor) and not _batch_dims(a) and not call.trace.stacked:
        call.trace.stacks.append((call.node, b, a))
        return _by_weight(call, first, second, contracted=-1, inner=len(b.shape) - 2, outer=len(b.shape) - 1)
    return _added(call, _product(call, first, second))


def _added(call: OpContext, product: Tensor) -> Tensor:
    """What `addmm` adds goes with the product's entries."""
    if "mat1" not in call.args:
        return product
    total = elementwise(OpContext(call.node, call.trace, {"product": product, "added": call.args["self"]}, call.shape))
    assert isinstance(total, Tensor)
    return total


def _batch_dims(value: Labels) -> set[int]:
    """The axes of a product's operand, but the last two, along which units lie; counted from the end."""
    rank = len(value.shape)
    layers = value.layers if isinstance(value, Weight) else (value,)
    return {dim - rank for layer in layers for dim in labelled_axes(layer) if dim < rank - 2}


def _operands(call: OpContext) -> tuple[str, str]:
    names = list(call.args)
    second = next(name for name in ("mat2", "other", "batch2") if name in names)
    return names[names.index(second) - 1], second


def freeze_all(call: OpContext, reason: str) -> Tensor:
    for value in call.args.values():
        if isinstance(value, Tensor | Weight):
            call.freeze(value, reason)
    result: Tensor = call.frozen()
    return result


def _by_weight(call: OpContext, x_name: str, w_name: str, contracted: int, inner: int, outer: int) -> Tensor:
    x, weight = call.activation(x_name), call.args[w_name]
    if isinstance(weight, Tensor):
        return freeze_all(call, "its weight is computed from other tensors")
    bias_name = "bias" if "bias" in call.args else "self" if w_name == "mat2" and x_name == "mat1" else None
    bias = call.args.get(bias_name) if bias_name else None
    dim = contracted % x.dim()
    if labelled_axes(x) and dim not in labelled_axes(x):
        return each_unit(call, x, dim, [weight, bias], weight.shape[inner])
    out = call.along(w_name, outer, produces=True)
    read = call.trace.along(x, dim, call.node)
    owned = call.trace.along(weight, inner, call.node, like=read)
    call.tie(owned, read)
    if isinstance(bias, Weight | Tensor):
        call.tie(call.trace.along(bias, -1, call.node), out)
    name = weight.name if contracted == -1 and weight.whole else None
    call.trace.read(call.node, x_name, dim, read, name, bias_name_of(bias), inner, out)
    call.trace.count(call.node, math.prod(call.shape) / len(out), out, owned)
    return broadcast_labels(out, dim, call.shape)


def bias_name_of(bias: Any) -> str | None:
    """The name of a bias that is a parameter as it stands; "computed" for any other."""
    if bias is None:
        return None
    return bias.name if isinstance(bias, Weight) and bias.whole else "computed"


def each_unit(
    call: OpContext, x: Tensor, dim: int, weights: list[Any], length: int, kernel: Sequence[int] = ()
) -> Tensor:
    """The operator serves each unit alike: units pass, its weights are frozen; `kernel` is as wide as it sees."""
    for weight in weights:
        if isinstance(weight, Weight | Tensor):
            call.freeze(weight, SHARED)
    axes = sorted(labelled_axes(x))
    moved = any(at >= len(call.shape) or x.shape[at] != call.shape[at] for at in axes)
    moved = moved or any(at > dim and kernel[at - dim - 1] > 1 for at in axes if kernel)
    if len(axes) > 1 or moved:
        call.freeze(x, "is changed along these units" if moved else CROSSED)
        result: Tensor = call.frozen()
        return result
    units = call.trace.along(x, axes[0], call.node)
    call.trace.count(call.node, math.prod(call.shape) * length / len(units), units)
    return broadcast_labels(units, axes[0], call.shape)


def _product(call: OpContext, first: str, second: str) -> Tensor:
    """Two activations: entries of one batch entry go together; without any, the contracted axes do."""
    a, b = (_operand(call, name, other) for name, other in ((first, second), (second, first)))
    rank = len(call.shape)
    batch = {dim - rank for t in (a, b) for dim in (d + rank - t.dim() for d in labelled_axes(t)) if dim < rank - 2}
    inner = a.shape[-1]
    if batch and not call.trace.by_width:
        heads = _batch_axis(call, [a, b], batch)
        if heads is None:
            return freeze_all(call, CROSSED)
        dim, units = heads
        call.trace.count(call.node, math.prod(call.shape) * inner / len(units), units)
        return broadcast_labels(units, dim, call.shape)
    return _plain_product(call, first, a, b, of_heads=bool(batch))


def _operand(call: OpContext, name: str, other: str) -> Tensor:
    """An operand's labels; of a parameter, those of the axis that lies along the other's heads."""
    value, beside = call.args[name], call.args[other]
    if isinstance(value, Weight) and (heads := _batch_dims(beside)):
        return call.trace.activation(value, call.node, {dim + len(value.shape) for dim in heads})
    return call.activation(name)


def _batch_axis(call: OpContext, operands: list[Tensor], batch: set[int]) -> tuple[int, Tensor] | None:
    """The one batch axis along which units lie, and its labels after tying what shares an entry."""
    if len(batch) > 1:
        return None
    (dim,) = batch
    shared = [t for t in operands if t.dim() < -dim or t.shape[dim] == 1 or _is_repeated(t, dim)]
    apart = [t for t in operands if not any(t is other for other in shared)]
    if len({t.shape[dim] for t in apart}) != 1:
        return None
    for operand in shared:
        call.freeze(operand, "is shared by all heads")
    before = len(call.trace.ties)
    vectors = [call.trace.along(t, dim, call.node) for t in apart]
    for other in vectors[1:]:
        call.tie(vectors[0], other)
    call.trace.sizes.extend(repeats(call.node, dim, vectors[0]))
    call.trace.heads.append(vectors[0])
    call.trace.within_heads.extend(call.trace.ties[before:])
    return dim, vectors[0]


def _is_repeated(labels: Tensor, dim: int) -> bool:
    """Whether units are repeated along an axis by expanding them."""
    return labels.stride(dim) == 0 and bool(squeeze_expanded(labels).any())


def _matched(call: OpContext, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The operands of a product; units along the contracted axis of one alone, where the other has none, are frozen."""
    in_a, in_b = labelled_axes(a), labelled_axes(b)
    nothing = torch.zeros((), dtype=torch.long)
    if a.dim() - 1 in in_a and in_b and b.dim() - 2 not in in_b:
        call.freeze(a, CROSSED)
        a = nothing.expand(a.shape)
    elif b.dim() - 2 in in_b and in_a and a.dim() - 1 not in in_a:
        call.freeze(b, CROSSED)
        b = nothing.expand(b.shape)
    return a, b


def _plain_product(call: OpContext, first: str, a: Tensor, b: Tensor, of_heads: bool) -> Tensor:
    axes = []
    a, b = _matched(call, a, b)
    in_a, in_b = {d - a.dim() for d in labelled_axes(a)}, {d - b.dim() for d in labelled_axes(b)}
    if -1 in in_a or -2 in in_b:
        read = call.trace.along(a, -1, call.node)
        call.tie(read, call.trace.along(b, -2, call.node))
        call.trace.read(call.node, first, a.dim() - 1, read)
        axes.append(read)
        in_a -= {-2} if -1 in in_a else set()  # what shares a contracted index goes together, whatever its row
        in_b -= {-1} if -2 in in_b else set()
    if not (in_a or in_b):
        return freeze_all(call, CROSSED)
    if -2 in in_a and -1 in in_b:
        crossing = fewer(a, b)
        call.freeze(crossing, CROSSES)
        (in_a if crossing is a else in_b).clear()
    rows = call.trace.along(a, -2, call.node) if -2 in in_a else None
    columns = call.trace.along(b, -1, call.node) if -1 in in_b else None
    out = rows if rows is not None else columns
    if out is not None:
        axes.append(out)
    if of_heads:
        call.trace.widths.extend(axes)
    constant = math.prod(call.shape) * a.shape[-1] / math.prod(len(axis) for axis in axes)
    call.trace.count(call.node, constant, *axes)
    if out is None:
        result: Tensor = call.frozen()
        return result
    return broadcast_labels(out, -2 if rows is not None else -1, call.shape)


def attention(call: OpContext) -> Tensor:
    """Scaled dot-product attention: a head is a unit; without a head axis, the values' width passes."""
    query, key, value = (call.activation(name) for name in ("query", "key", "value"))
    if call.args.get("enable_gqa") and key.shape[-3] < query.shape[-3]:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    rank = len(call.shape)
    tokens = query.shape[-2] * key.shape[-2]
    batch = {d - t.dim() for t in (query, key, value) for d in labelled_axes(t) if d < t.dim() - 2}
    if batch and not call.trace.by_width:
        heads = _batch_axis(call, [query, key, value], batch)
        if heads is None:
            return freeze_all(call, "its heads are shared or cross another kind of units")
        dim, units = heads
        if call.args.get("attn_mask") is not None:
            scores = torch.Size((*call.shape[:-1], key.shape[-2]))
            _mask(call, broadcast_labels(units, dim, scores), scores)
        examples = math.prod(call.shape[:-2]) / len(units)
        call.trace.count(call.node, examples * tokens * (query.shape[-1] + value.shape[-1]), units)
        return broadcast_labels(units, dim, call.shape)
    columns = call.trace.along(value, -1, call.node)
    examples = math.prod(call.shape[:-2])
    if call.trace.by_width:
        read = call.trace.along(query, -1, call.node)
        call.tie(read, call.trace.along(key, -1, call.node))
        call.trace.read(call.node, "query", query.dim() - 1, read)
        call.trace.widths.extend([read, columns])
        call.trace.count(call.node, examples * tokens, read)
    else:
        for operand in (query, key):
            call.freeze(operand, "the scale of the scores depends on the width")
        call.trace.count(call.node, examples * tokens * query.shape[-1])
    call.trace.count(call.node, examples * tokens, columns)
    return broadcast_labels(columns, rank - 1, call.shape)


def _mask(call: OpContext, scores: Tensor, shape: torch.Size) -> Labels:
    added = {"scores": scores, "mask": call.args["attn_mask"]}
    return elementwise(OpContext(call.node, call.trace, added, shape))


def bilinear(call: OpContext) -> Tensor:
    """Reads the last axis of both inputs; the weight's first axis makes units."""
    weight = call.args["weight"]
    if not isinstance(weight, Weight):
        return freeze_all(call, "its weight is computed from other tensors")
    out = call.along("weight", 0, produces=True)
    if call.args.get("bias") is not None:
        call.tie(call.along("bias", 0), out)
    owned = []
    for axis, name in ((1, "input1"), (2, "input2")):
        x = call.activation(name)
        read = call.trace.along(x, -1, call.node)
        owned.append(call.along("weight", axis))
        call.tie(owned[-1], read)
        call.trace.read(call.node, name, x.dim() - 1, read)
    call.trace.count(call.node, math.prod(call.shape) / len(out), out, *owned)
    return broadcast_labels(out, -1, call.shape)


def embedding(call: OpContext) -> Tensor:
    """Rows are chosen by the input; the width is a new axis of units."""
    weight = call.args["weight"]
    if isinstance(weight, Tensor):
        return freeze_all(call, "its table is computed from other tensors")
    call.freeze(weight.layers[0], "rows are chosen by the input")
    return broadcast_labels(call.along("weight", 1, produces=True), -1, call.shape)


def embedding_bag(call: OpContext) -> Any:
    """Sums, means or maxima of rows: as an embedding; what else comes out counts entries."""
    result, *counts = call.shape
    rows = embedding(OpContext(call.node, call.trace, call.args, result))
    weighting = call.args.get("per_sample_weights")
    if isinstance(weighting, Tensor | Weight):
        call.freeze(weighting, "weighs whole rows")
    return (rows, *(rows if shape == result and len(shape) == 2 else frozen(shape) for shape in counts))


def pairwise_distance(call: OpContext) -> Tensor:
    """`cdist`: reads the last axis of both operands; the rows of a parameter are new units."""
    operands: dict[str, Labels] = {name: call.args[name] for name in ("x1", "x2")}
    batch = {dim for value in operands.values() for dim in _batch_dims(value)}
    if batch:
        heads = _batch_axis(call, [_operand(call, "x1", "x2"), _operand(call, "x2", "x1")], batch)
        return freeze_all(call, CROSSED) if heads is None else broadcast_labels(heads[1], heads[0], call.shape)
    read = [call.trace.along(value, -1, call.node) if _lies(value, -1) else None for value in operands.values()]
    rows = [
        call.trace.along(value, -2, call.node, produces=True) if _lies(value, -2) else None
        for value in operands.values()
    ]
    for name, labels in zip(operands, read, strict=True):
        if labels is not None:
            call.tie(labels, next((other for other in read if other is not labels and other is not None), UNLABELLED))
            call.trace.read(call.node, name, len(operands[name].shape) - 1, labels)
    if rows[0] is not None and rows[1] is not None:
        return freeze_all(call, CROSSED)
    result: Tensor = call.frozen()
    if rows[0] is not None:
        result = broadcast_labels(rows[0], -2, call.shape)
    elif rows[1] is not None:
        result = broadcast_labels(rows[1], -1, call.shape)
    return result


def _lies(value: Labels, dim: int) -> bool:
    """Whether units lie along an axis, counted from the end."""
    layers = value.layers if isinstance(value, Weight) else (value,)
    return any(dim + len(value.shape) in labelled_axes(layer) for layer in layers)
