"""How labels pass operators that work entry by entry."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from secateur.coupling.label_tracer import (
    MEETS,
    Labels,
    Weight,
    broadcast_labels,
    determines,
    labelled_axes,
    squeeze_expanded,
)
from secateur.coupling.rules.context import OpContext, tensors
from secateur.graph.operators import operator_name

CROSSES = "crosses a larger kind of units"


def elementwise(call: OpContext) -> Labels:
    """Entries that meet go together."""
    operands = [value for value in tensors(call.args) if value.shape != torch.Size()]
    activations = [value for value in operands if isinstance(value, Tensor)]
    weights = [value for value in operands if isinstance(value, Weight)]
    if not operands:
        nothing: Tensor = call.frozen()
        return nothing
    if not activations:
        return _weights_only(call, weights)
    result = activations[0]
    for other in activations[1:]:
        result = _meet(call, result, other)
    if weights and not bool(result.any()) and all(call.trace.is_constant(weight) for weight in weights):
        return _constants(call, weights, result)
    for weight in weights:
        result = _meet_weight(call, result, weight)
    return result.expand(call.shape)


def _weights_only(call: OpContext, weights: list[Weight]) -> Weight:
    """A parameter, or several whose axes that lie along each other go together."""
    keys: list[tuple[str, int]] = []
    layers: list[Tensor] = []
    for weight in weights:
        spans = {frozenset(labelled_axes(layer)): at for at, layer in enumerate(layers)}
        for key, layer in zip(weight.keys, (layer.expand(call.shape) for layer in weight.layers), strict=True):
            at = spans.get(frozenset(labelled_axes(layer)))
            if at is None or not labelled_axes(layer):
                keys.append(key)
                layers.append(layer)
                continue
            call.trace.touch(key, produces=False)
            call.trace.touch(keys[at], produces=False)
            call.tie(layers[at], layer)
    return Weight(weights[0].name, tuple(keys), tuple(layers), whole=False)


def _constants(call: OpContext, weights: list[Weight], beside: Tensor) -> Labels:
    """Constants that meet what has no units: they stay as long as they are along the axes where that has length 1."""
    met = _weights_only(call, weights)
    wide = [_wide(beside.shape, labelled_axes(layer), len(call.shape)) for layer in met.layers]
    for layer in (layer for layer, bad in zip(met.layers, wide, strict=True) if bad):
        call.freeze(layer, MEETS)
    free = [(key, layer) for key, layer, bad in zip(met.keys, met.layers, wide, strict=True) if not bad]
    if not free:
        return torch.zeros((), dtype=torch.long).expand(call.shape)
    keys, layers = zip(*free, strict=True)
    return Weight(met.name, keys, layers, whole=False)


def _wide(shape: torch.Size, dims: set[int], rank: int) -> bool:
    """Whether a tensor is longer than 1 along any of these axes of the broadcast result."""
    return any(dim - rank + len(shape) >= 0 and shape[dim - rank + len(shape)] > 1 for dim in dims)


def _meet(call: OpContext, a: Tensor, b: Tensor) -> Tensor:
    """Units of one tensor go with what they meet in the other; where that has length 1 they meet nothing."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    in_a, in_b = labelled_axes(a.expand(shape)), labelled_axes(b.expand(shape))
    held_a, held_b = _wide(b.shape, in_a - in_b, len(shape)), _wide(a.shape, in_b - in_a, len(shape))
    if in_a & in_b or not (in_a or in_b):
        call.tie(a, b)
        if in_a and operator_name(call.node) in ("add", "sub") and joins(a, b):
            call.trace.additions.append((call.node, a.expand(shape)))
    elif held_a or held_b:
        for labels, held in ((a, held_a), (b, held_b)):
            if held:
                call.freeze(labels, MEETS)
    elif in_a and in_b:
        crossing = fewer(a, b)
        call.freeze(crossing, CROSSES)
        return (b if crossing is a else a).expand(shape)
    other = len(in_b) > len(in_a) if in_a & in_b else bool(in_b) and (held_a or not in_a)
    return (b if other else a).expand(shape)


def joins(a: Tensor, b: Tensor) -> bool:
    """Whether two operands come from different layers: not where a tensor is added to a function of itself."""
    return (
        bool((squeeze_expanded(a) != squeeze_expanded(b)).any())
        if squeeze_expanded(a).dim() == squeeze_expanded(b).dim()
        else True
    )


def fewer(a: Tensor, b: Tensor) -> Tensor:
    """Of two tensors the one with fewer kinds of labels, the second where both have as many."""
    counts = [len(torch.unique(squeeze_expanded(labels))) for labels in (a, b)]
    return a if counts[0] < counts[1] else b


def _meet_weight(call: OpContext, a: Tensor, weight: Weight) -> Tensor:
    """The axis of the weight that follows a's labels is theirs; its other axes are frozen."""
    shape = torch.broadcast_shapes(a.shape, weight.shape)
    in_a = labelled_axes(a.expand(shape))
    matched = not _wide(weight.shape, in_a, len(shape))
    result = a
    for key, layer in zip(weight.keys, weight.layers, strict=True):
        in_layer = labelled_axes(layer.expand(shape))
        if not in_layer:
            continue
        if not _wide(a.shape, in_layer, len(shape)) and not in_a and result is a:
            result = layer.expand(shape)
            call.trace.touch(key, produces=True)
        elif not matched and determines(a, layer):
            call.trace.touch(key, produces=False)
            call.tie(a, layer)
            matched = True
        else:
            call.freeze(layer, f"{weight.name} meets a tensor that can't be cut")
    if not matched:
        call.freeze(a, f"meets {weight.name}, of which no axis follows these units")
    return result.expand(shape)


def passing(call: OpContext) -> Labels:
    """The first argument's labels come out: casts, copies, dropout."""
    value = call.args["self"] if "self" in call.args else call.args["input"]
    if isinstance(value, Weight):
        return value
    labels: Tensor = value
    return labels.expand(call.shape)


def broadcast(call: OpContext) -> list[Labels]:
    """Every tensor in the shape of all; those who use them tie what meets."""

    def wide(value: Labels, shape: torch.Size) -> Labels:
        if isinstance(value, Weight):
            return replace(value, layers=tuple(layer.expand(shape) for layer in value.layers), whole=False)
        return value.expand(shape)

    return [wide(value, shape) for value, shape in zip(call.args["tensors"], call.shape, strict=True)]


def dropout(call: OpContext) -> Labels:
    labels = call.activation("input")
    stack = call.node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1][:2] if stack else ("", "")
    if "Dropout" in str(kind):
        call.trace.dropouts.append((str(path), torch.unique(squeeze_expanded(labels))))
    return labels


def prelu(call: OpContext) -> Labels:
    """Elementwise, with one slope for each channel, the second axis."""
    labels = call.activation("self")
    if math.prod(call.args["weight"].shape) == 1:
        return labels
    channels = call.trace.along(labels, 1, call.node)
    call.tie(call.along("weight", 0), channels)
    return broadcast_labels(channels, 1, labels.shape)


def created(call: OpContext) -> Labels:
    """One value everywhere: as many entries as what it meets has units."""
    return call.trace.constant(call.node, call.shape, range(len(call.shape)))


def overwritten(call: OpContext) -> Tensor:
    """A tensor whose entries are all replaced: what is put there goes with what was there."""
    source = call.activation("src").expand(call.shape)
    call.tie(call.trace.activation(call.args["self"], call.node, labelled_axes(source)), source)
    return source
