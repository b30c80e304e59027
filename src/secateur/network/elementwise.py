"""How labels pass operators that work entry by entry, normalise, pool or reduce."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.network.labels import Labels, Trace, Weight, compact, spread, unique_pairs, varying


@dataclass(frozen=True)
class Call:
    """One operator as its rule sees it: arguments by name, with labels in place of tensors, and the result's shape."""

    node: Node
    trace: Trace
    args: dict[str, Any]
    shape: Any

    def freeze(self, value: Any, reason: str) -> None:
        self.trace.freeze(value, self.node, reason)

    def tie(self, a: Tensor, b: Tensor) -> None:
        self.trace.tie(a, b, self.node)

    def along(self, name: str, dim: int, produces: bool = False) -> Tensor:
        return self.trace.along(self.args[name], dim, self.node, produces)

    def activation(self, name: str) -> Tensor:
        return self.trace.activation(self.args[name], self.node)

    def frozen(self) -> Any:
        """Label 0 in the shape of the result."""
        return frozen(self.shape)


def frozen(shape: Any) -> Any:
    """Label 0 in the shape of a result; the same for each of several results."""
    if isinstance(shape, torch.Size):
        return torch.zeros((), dtype=torch.long).expand(shape)
    if isinstance(shape, list | tuple):
        return type(shape)(frozen(part) for part in shape)
    return shape


def elementwise(call: Call) -> Labels:
    """Entries that meet go together."""
    operands = [value for value in tensors(call.args) if value.shape != torch.Size()]
    activations = [value for value in operands if isinstance(value, Tensor)]
    weights = [value for value in operands if isinstance(value, Weight)]
    if not activations:
        return _weights_only(call, weights)
    result = activations[0]
    for other in activations[1:]:
        result = _meet(call, result, other)
    for weight in weights:
        result = _meet_weight(call, result, weight)
    return result.expand(call.shape)


def tensors(values: Any) -> list[Labels]:
    """All labels in an operator's arguments, lists included."""
    if isinstance(values, Tensor | Weight):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [labels for value in values for labels in tensors(value)]


def _weights_only(call: Call, weights: list[Weight]) -> Labels:
    if len(weights) == 1 and weights[0].shape == call.shape:
        return Weight(weights[0].name, weights[0].layers, whole=False)
    for weight in weights:
        call.freeze(weight, "parameters are computed from each other")
    nothing: Tensor = call.frozen()
    return nothing


def _wide(shape: torch.Size, dims: set[int], rank: int) -> bool:
    """Whether a tensor is longer than 1 along any of these axes of the broadcast result."""
    return any(dim - rank + len(shape) >= 0 and shape[dim - rank + len(shape)] > 1 for dim in dims)


def _meet(call: Call, a: Tensor, b: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(a.shape, b.shape)
    rank = len(shape)
    in_a, in_b = varying(a.expand(shape)), varying(b.expand(shape))
    if (not in_a and not in_b) or _wide(b.shape, in_a, rank) or _wide(a.shape, in_b, rank):
        call.tie(a, b)
        return (a if in_a or not in_b else b).expand(shape)
    if in_a and in_b:
        call.freeze(a, "two kinds of units cross")
        call.freeze(b, "two kinds of units cross")
    return (a if in_a else b).expand(shape)


def _meet_weight(call: Call, a: Tensor, weight: Weight) -> Tensor:
    """The axis of the weight that follows a's labels is theirs; its other axes are frozen."""
    shape = torch.broadcast_shapes(a.shape, weight.shape)
    in_a = varying(a.expand(shape))
    matched = not _wide(weight.shape, in_a, len(shape))
    result = a
    for axis, layer in enumerate(weight.layers):
        in_layer = varying(layer.expand(shape))
        if not in_layer:
            continue
        if not _wide(a.shape, in_layer, len(shape)) and not in_a and result is a:
            result = layer.expand(shape)
            call.trace.touch(weight.name, axis, produces=True)
        elif not matched and _is_function(a, layer):
            call.trace.touch(weight.name, axis, produces=False)
            call.tie(a, layer)
            matched = True
        else:
            call.freeze(layer, f"{weight.name} meets a tensor that can't be cut")
    if not matched:
        call.freeze(a, f"meets {weight.name}, of which no axis follows these units")
    return result.expand(shape)


def _is_function(a: Tensor, b: Tensor) -> bool:
    """Whether the labels of one are decided by those of the other."""
    pairs = unique_pairs(a, b).shape[1]
    return pairs == max(len(torch.unique(compact(a))), len(torch.unique(compact(b))))


def passing(call: Call) -> Labels:
    """The first argument's labels come out: casts, copies, dropout."""
    value = call.args["self"] if "self" in call.args else call.args["input"]
    if isinstance(value, Weight):
        return value
    labels: Tensor = value
    return labels.expand(call.shape)


def dropout(call: Call) -> Labels:
    labels = call.activation("input")
    stack = call.node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1][:2] if stack else ("", "")
    if "Dropout" in str(kind):
        call.trace.dropouts.append((str(path), torch.unique(compact(labels))))
    return labels


def prelu(call: Call) -> Labels:
    """Elementwise, with one slope for each channel, the second axis."""
    labels = call.activation("self")
    if math.prod(call.args["weight"].shape) == 1:
        return labels
    channels = call.trace.along(labels, 1, call.node)
    call.tie(call.along("weight", 0), channels)
    return spread(channels, 1, labels.shape)


def settled(call: Call, labels: Tensor, dims: set[int], reason: str) -> Tensor | None:
    """Labels that do not differ along these axes: what differs there goes together.

    None, and all frozen, where the units lie along these axes alone.
    """
    differing = varying(labels)
    crossed = differing & dims
    if crossed and crossed == differing:
        call.freeze(labels, reason)
        return None
    for dim in crossed:
        first = labels.narrow(dim, 0, 1)
        call.tie(labels, first)
        labels = first.expand(labels.shape)
    return labels


def softmax(call: Call) -> Tensor:
    labels = call.activation("self")
    across = {call.args["dim"] % labels.dim()}
    if varying(labels) & across:
        call.freeze(labels, "is normalised over these units")
        return torch.zeros((), dtype=torch.long).expand(labels.shape)
    return labels


def reduction(call: Call) -> Any:
    """Mean, sum, maximum and the like: what differs along the axes that are reduced goes together."""
    labels = call.activation("self" if "self" in call.args else "x")
    dims = call.args.get("dim")
    every = range(labels.dim())
    reduced = {dim % labels.dim() for dim in ([dims] if isinstance(dims, int) else dims or every)}
    passed = settled(call, labels, reduced, "is reduced over these units")
    if passed is None:
        return call.frozen()
    for dim in reduced:
        passed = passed.narrow(dim, 0, 1)
    shapes = (call.shape,) if isinstance(call.shape, torch.Size) else tuple(call.shape)
    if len(shapes[0]) < passed.dim():
        passed = passed[tuple(0 if dim in reduced else slice(None) for dim in every)]
    return passed.expand(shapes[0]) if isinstance(call.shape, torch.Size) else tuple(passed.expand(s) for s in shapes)


def spatial(call: Call) -> Any:
    """Pooling, interpolation and the like: batch and channels stay, what differs over space goes together."""
    labels = call.activation("self" if "self" in call.args else "input")
    shapes = (call.shape,) if isinstance(call.shape, torch.Size) else tuple(call.shape)
    space = set(range(2, labels.dim()))
    if labels.shape[:2] != shapes[0][:2]:
        call.freeze(labels, "is resized over these units")
        return call.frozen()
    passed = settled(call, labels, space, "is resized over these units")
    if passed is None:
        return call.frozen()
    for dim in space:
        passed = passed.narrow(dim, 0, 1)
    results = tuple(passed.expand(shape) for shape in shapes)
    return results[0] if isinstance(call.shape, torch.Size) else results


def batch_norm(call: Call) -> Any:
    """Each channel by itself: its four statistics and weights go with it."""
    labels = call.activation("input")
    channels = call.trace.along(labels, 1, call.node)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.args.get(name) is not None:
            call.tie(call.along(name, 0), channels)
    if call.args.get("training") or (call.args.get("use_input_stats") and call.args.get("running_mean") is not None):
        call.freeze(labels, "batch norm is in training mode")
    if isinstance(call.shape, torch.Size):
        return labels
    return (labels, *frozen(call.shape[1:]))


def layer_norm(call: Call) -> Any:
    """Normalises over its last axes: a reader of the units there; elsewhere each entry by itself."""
    labels = call.activation("input")
    first = labels.dim() - len(call.args["normalized_shape"])
    across = {dim for dim in varying(labels) if dim >= first}
    weights = [call.args[name] for name in ("weight", "bias") if isinstance(call.args.get(name), Weight)]
    if len(across) > 1 or (across and varying(labels) - across):
        call.freeze(labels, "is normalised across two kinds of units")
        across = set()
    for weight in weights:
        for axis in range(len(weight.shape)):
            entries = call.trace.along(weight, axis, call.node)
            if first + axis in across:
                call.tie(entries, call.trace.along(labels, first + axis, call.node))
            else:
                call.freeze(entries, "the same weights serve every unit")
    for dim in across:
        call.trace.read(call.node, "input", dim, call.trace.along(labels, dim, call.node))
    return labels


def group_norm(call: Call) -> Any:
    """Whole groups go together, each normalised by itself; with one group the norm reads its channels."""
    labels = call.activation("input")
    channels = call.trace.along(labels, 1, call.node)
    groups = call.args["num_groups"]
    for name in ("weight", "bias"):
        if isinstance(call.args.get(name), Weight):
            call.tie(call.along(name, 0), channels)
    if groups > 1:
        rows = channels.view(groups, -1)
        call.tie(rows, rows[:, :1])
    else:
        call.trace.read(call.node, "input", 1, channels)
    return spread(channels, 1, labels.shape)
