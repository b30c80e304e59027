"""How labels pass operators that normalise, pool or reduce over some axes."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight, broadcast_labels, entries_along, labelled_axes
from secateur.coupling.rules.context import OpContext, frozen
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.parameter_axes import grown, layerwise, narrowed
from secateur.coupling.rules.windows import AVERAGES, neighbour_windows
from secateur.graph.operators import operator_name


def settled(call: OpContext, labels: Tensor, dims: set[int], reason: str) -> Tensor | None:
    """Labels that do not differ along these axes: what differs there goes together.

    None, and all frozen, where the units lie along these axes alone.
    """
    differing = labelled_axes(labels)
    crossed = differing & dims
    if crossed and crossed == differing:
        call.freeze(labels, reason)
        return None
    for dim in crossed:
        first = labels.narrow(dim, 0, 1)
        call.tie(labels, first)
        labels = first.expand(labels.shape)
    return labels


def softmax(call: OpContext) -> Tensor:
    """What differs along the axis goes together; no unit may be left out of the sum there."""
    labels = call.activation("self")
    dim = call.args["dim"] % labels.dim()
    if call.trace.stacked and labelled_axes(labels) == {dim}:
        call.trace.read(call.node, "self", dim, call.trace.along(labels, dim, call.node))
        return labels
    passed = settled(call, labels, {call.args["dim"] % labels.dim()}, "is normalised over these units")
    frozen_result: Tensor = call.frozen()
    return frozen_result if passed is None else passed


def reduction(call: OpContext) -> Any:
    """Maximum, product and the like: what differs along the axes that are reduced goes together."""
    argument = "self" if "self" in call.args else "x"
    if _is_parameter(call, argument):
        return _reduced_parameter(call, argument, reads=False)
    labels = call.activation(argument)
    passed = settled(call, labels, _reduced(call, labels), "is reduced over these units")
    return call.frozen() if passed is None else _reduce(call, passed)


def summation(call: OpContext) -> Any:
    """Sum, mean, variance, Euclidean norm: readers of the units that lie along the one axis they reduce."""
    argument = "self" if "self" in call.args else "x"
    is_euclidean = call.args.get("ord", call.args.get("p", 2)) == 2
    if _is_parameter(call, argument):
        return _reduced_parameter(call, argument, reads=is_euclidean)
    labels = call.activation(argument)
    across = labelled_axes(labels) & _reduced(call, labels)
    if not across or across != labelled_axes(labels) or len(across) > 1 or not is_euclidean:
        return reduction(call)
    (dim,) = across
    call.trace.read(call.node, argument, dim, call.trace.along(labels, dim, call.node))
    return call.frozen()


def _is_parameter(call: OpContext, argument: str) -> bool:
    value = call.args[argument]
    return isinstance(value, Weight) and not call.trace.is_constant(value)


def _reduced_parameter(call: OpContext, argument: str, reads: bool) -> Any:
    """A parameter on its way to be a weight: its other axes pass, and units along those that are reduced are read."""
    weight: Weight = call.args[argument]
    beside = read_along(call, argument, _reduced(call, weight)) if reads else weight
    slim = narrowed(call, beside, _reduced(call, weight), "is reduced over these units")
    return layerwise(slim, lambda labels: _reduce(call, labels))


def read_along(call: OpContext, argument: str, dims: set[int]) -> Labels:
    """A parameter without the axes that lie along some axes, where an operator reads their units."""
    weight: Weight = call.args[argument]
    beside = []
    for key, layer in zip(weight.keys, weight.layers, strict=True):
        across = labelled_axes(layer) & dims
        if len(across) == 1 and labelled_axes(layer) == across:
            (dim,) = across
            call.trace.read(call.node, argument, dim, entries_along(layer, dim))
        else:
            beside.append((key, layer))
    if not beside:
        return torch.zeros((), dtype=torch.long).expand(weight.shape)
    keys, layers = zip(*beside, strict=True)
    return Weight(weight.name, keys, layers, whole=False)


def _reduced(call: OpContext, labels: Labels) -> set[int]:
    """The axes that an operator reduces over."""
    dims, rank = call.args.get("dim"), len(labels.shape)
    return {dim % rank for dim in ([dims] if isinstance(dims, int) else dims or range(rank))}


def _reduce(call: OpContext, labels: Tensor) -> Any:
    """Labels that do not differ along the reduced axes, in the shape of the result."""
    source = call.args["self" if "self" in call.args else "x"]
    reduced = _reduced(call, source)
    for dim in reduced:
        labels = labels.narrow(dim, 0, 1)
    shapes = (call.shape,) if isinstance(call.shape, torch.Size) else tuple(call.shape)
    if len(shapes[0]) < labels.dim():
        labels = labels[tuple(0 if dim in reduced else slice(None) for dim in range(labels.dim()))]
    return labels.expand(shapes[0]) if isinstance(call.shape, torch.Size) else tuple(labels.expand(s) for s in shapes)


def spatial(call: OpContext) -> Any:
    """Pooling, interpolation and the like: batch and channels stay, what differs over space goes together."""
    argument = "self" if "self" in call.args else "input"
    shapes = (call.shape,) if isinstance(call.shape, torch.Size) else tuple(call.shape)
    space = set(range(2, len(call.args[argument].shape)))
    if _is_parameter(call, argument) and isinstance(call.shape, torch.Size):
        return grown(narrowed(call, call.args[argument], space, "is resized over these units"), call.shape)
    labels = call.activation(argument)
    if operator_name(call.node) in AVERAGES and (averaged := neighbour_windows(call, labels)) is not None:
        return averaged
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


def unpool(call: OpContext) -> Any:
    """Entries put back where a maximum was found: the places go with the values, channel by channel."""
    values = {name: call.activation(name) for name in ("self", "indices")}
    met = elementwise(OpContext(call.node, call.trace, values, values["self"].shape))
    return spatial(OpContext(call.node, call.trace, {"self": met}, call.shape))


def batch_norm(call: OpContext) -> Any:
    """Each channel by itself: its four statistics and weights go with it."""
    if _is_parameter(call, "input"):
        return _standardised(call)
    labels = call.activation("input")
    channels = call.trace.along(labels, 1, call.node)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.args.get(name) is not None:
            call.tie(call.along(name, 0), channels)
    own_statistics = call.args.get("training") or call.args.get("use_input_stats")
    if own_statistics and call.args.get("running_mean") is not None:
        call.freeze(labels, "batch norm is in training mode")
    if isinstance(call.shape, torch.Size):
        return labels
    return (labels, *frozen(call.shape[1:]))


def _standardised(call: OpContext) -> Labels:
    """A parameter whose rows are given mean 0 and variance 1 before it is used as a weight."""
    weight: Weight = call.args["input"]
    read_along(call, "input", {0, *range(2, len(weight.shape))})
    given: dict[str, Labels] = {"input": weight}
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = call.args.get(name)
        if value is not None:
            along: Labels = layerwise(value, lambda labels: labels.view(1, -1, *[1] * (len(weight.shape) - 2)))
            given[name] = along
    return elementwise(OpContext(call.node, call.trace, given, weight.shape))


def layer_norm(call: OpContext) -> Any:
    """Normalises over its last axes: a reader of the units there; elsewhere each entry by itself."""
    labels = call.activation("input")
    first = labels.dim() - len(call.args["normalized_shape"])
    across = {dim for dim in labelled_axes(labels) if dim >= first}
    weights = [call.args[name] for name in ("weight", "bias") if isinstance(call.args.get(name), Weight)]
    if len(across) > 1 or (across and labelled_axes(labels) - across):
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


def group_norm(call: OpContext) -> Any:
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
    return broadcast_labels(channels, 1, labels.shape)
