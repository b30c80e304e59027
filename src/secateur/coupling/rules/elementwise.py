"""Label rules of operators that work entry by entry."""

from dataclasses import replace
from math import inf

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.label_tracer import MEETS
from secateur.coupling.labels import (
    Labels,
    ParameterAxis,
    Weight,
    broadcast_labels,
    determines,
    frozen_labels,
    labelled_axes,
    squeeze_expanded,
)
from secateur.coupling.rules.context import OpContext, tensors
from secateur.coupling.rules.op_rule import Bounds, BoundsRule, OpRule, RuleTable
from secateur.coupling.rules.position_axes import no_axis
from secateur.graph.operators import arguments

CROSSES = "crosses a larger kind of units"


def elementwise(op: OpContext) -> Labels:
    """Couple entries that meet."""
    operands = [value for value in tensors(op.args) if value.shape != torch.Size()]
    activations = [value for value in operands if isinstance(value, Tensor)]
    weights = [value for value in operands if isinstance(value, Weight)]
    if not operands:
        return frozen_labels(op.shape)
    if not activations:
        return _couple_weights(op, weights)
    result = activations[0]
    for other in activations[1:]:
        result = _couple_activations(op, result, other)
    if weights and not bool(result.any()) and all(op.tracer.is_constant(weight) for weight in weights):
        return _pass_constants(op, weights, result)
    for weight in weights:
        result = _couple_weight(op, result, weight)
    return result.expand(op.shape)


def _couple_weights(op: OpContext, weights: list[Weight]) -> Weight:
    """Return the axes of all weights; axes that lie along each other are coupled."""
    keys: list[ParameterAxis] = []
    axes: list[Tensor] = []
    for weight in weights:
        positions = {frozenset(labelled_axes(labels)): at for at, labels in enumerate(axes)}
        for key, labels in zip(weight.keys, (labels.expand(op.shape) for labels in weight.labels), strict=True):
            at = positions.get(frozenset(labelled_axes(labels)))
            if at is None or not labelled_axes(labels):
                keys.append(key)
                axes.append(labels)
                continue
            op.tracer.touch(key, produces=False)
            op.tracer.touch(keys[at], produces=False)
            op.couple(axes[at], labels)
    return Weight(weights[0].name, tuple(keys), tuple(axes), is_plain=False)


def _pass_constants(op: OpContext, weights: list[Weight], other: Tensor) -> Labels:
    """Return constants that meet a tensor without units: they keep the axes along which that tensor has length 1."""
    constants = _couple_weights(op, weights)
    is_blocked = [_is_longer(other.shape, labelled_axes(labels), len(op.shape)) for labels in constants.labels]
    for labels in (labels for labels, blocks in zip(constants.labels, is_blocked, strict=True) if blocks):
        op.freeze(labels, MEETS)
    free_axes = [
        (key, labels)
        for key, labels, blocks in zip(constants.keys, constants.labels, is_blocked, strict=True)
        if not blocks
    ]
    if not free_axes:
        return frozen_labels(op.shape)
    keys, axes = zip(*free_axes, strict=True)
    return Weight(constants.name, keys, axes, is_plain=False)


def _is_longer(shape: torch.Size, dims: set[int], rank: int) -> bool:
    """Return whether a tensor is longer than 1 along any of these axes of the broadcast result."""
    return any(dim - rank + len(shape) >= 0 and shape[dim - rank + len(shape)] > 1 for dim in dims)


def _couple_activations(op: OpContext, a: Tensor, b: Tensor) -> Tensor:
    """Couple the units of two tensors that meet; where one of them has length 1, the other's units pass."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    in_a, in_b = labelled_axes(a.expand(shape)), labelled_axes(b.expand(shape))
    blocks_a, blocks_b = _is_longer(b.shape, in_a - in_b, len(shape)), _is_longer(a.shape, in_b - in_a, len(shape))
    if in_a & in_b or not (in_a or in_b):
        op.couple(a, b)
    elif blocks_a or blocks_b:
        for labels, blocks in ((a, blocks_a), (b, blocks_b)):
            if blocks:
                op.freeze(labels, MEETS)
    elif in_a and in_b:
        crossing = fewer_units(a, b)
        op.freeze(crossing, CROSSES)
        return (b if crossing is a else a).expand(shape)
    takes_b = len(in_b) > len(in_a) if in_a & in_b else bool(in_b) and (blocks_a or not in_a)
    return (b if takes_b else a).expand(shape)


def addition(op: OpContext) -> Labels:
    """Couple entries that are added, and note sums of the activations of different layers."""
    result = elementwise(op)
    activations = [value for value in tensors(op.args) if isinstance(value, Tensor) and value.shape != torch.Size()]
    if len(activations) == 2:
        a, b = activations
        shape = torch.broadcast_shapes(a.shape, b.shape)
        if labelled_axes(a.expand(shape)) & labelled_axes(b.expand(shape)) and joins_layers(a, b):
            op.tracer.notes.additions.append((op.node, a.expand(shape)))
    return result


def joins_layers(a: Tensor, b: Tensor) -> bool:
    """Return whether two operands come from different layers: not where a tensor meets a function of itself."""
    narrow_a, narrow_b = squeeze_expanded(a), squeeze_expanded(b)
    return narrow_a.dim() != narrow_b.dim() or bool((narrow_a != narrow_b).any())


def fewer_units(a: Tensor, b: Tensor) -> Tensor:
    """Return of two tensors the one with fewer distinct labels, the second where both have as many."""
    counts = [len(torch.unique(squeeze_expanded(labels))) for labels in (a, b)]
    return a if counts[0] < counts[1] else b


def _couple_weight(op: OpContext, a: Tensor, weight: Weight) -> Tensor:
    """Couple the axis of a weight that follows the labels of an activation; freeze its other axes."""
    shape = torch.broadcast_shapes(a.shape, weight.shape)
    in_a = labelled_axes(a.expand(shape))
    is_matched = not _is_longer(weight.shape, in_a, len(shape))
    result = a
    for key, labels in zip(weight.keys, weight.labels, strict=True):
        in_weight = labelled_axes(labels.expand(shape))
        if not in_weight:
            continue
        if not _is_longer(a.shape, in_weight, len(shape)) and not in_a and result is a:
            result = labels.expand(shape)
            op.tracer.touch(key, produces=True)
        elif not is_matched and determines(a, labels):
            op.tracer.touch(key, produces=False)
            op.couple(a, labels)
            is_matched = True
        else:
            op.freeze(labels, f"{weight.name} meets a tensor that can't be cut")
    if not is_matched:
        op.freeze(a, f"meets {weight.name}, of which no axis follows these units")
    return result.expand(shape)


def prelu(op: OpContext) -> Labels:
    """Couple the slope of each channel, the second axis, with the channel."""
    labels = op.activation("self")
    if torch.Size(op.args["weight"].shape).numel() == 1:
        return labels
    channels = op.axis_labels(labels, 1)
    op.couple(op.axis_labels("weight", 0), channels)
    return broadcast_labels(channels, 1, labels.shape)


POINTWISE = OpRule(elementwise, channels="join")
"""The rule of every operator that torch tags as pointwise, unless it has a rule of its own."""


def _argument_bounds(low: str, high: str) -> BoundsRule:
    """Return the rule of an operator with its bounds in two of its arguments."""

    def bounds(node: Node) -> Bounds:
        values = arguments(node).get(low), arguments(node).get(high)
        if not all(value is None or isinstance(value, int | float) for value in values):
            return -inf, inf
        return -inf if values[0] is None else float(values[0]), inf if values[1] is None else float(values[1])

    return bounds


RULES: RuleTable = {
    "hardswish log_sigmoid where rsub native_dropout __and__ __or__ real imag _conj normal resolve_conj resolve_neg "
    "complex polar": POINTWISE,  # those that torch does not tag as pointwise
    "add": replace(POINTWISE, labels=addition, sums="add", gates="sum"),
    "add_": replace(POINTWISE, sums="add"),
    "sub": replace(POINTWISE, labels=addition, sums="sub", gates="sum"),
    "div": replace(POINTWISE, gates="quotient"),
    "mul neg leaky_relu": replace(POINTWISE, gates="passes"),
    "relu": replace(POINTWISE, gates="passes", clips=lambda node: (0.0, inf)),
    "relu6": replace(POINTWISE, clips=lambda node: (0.0, 6.0)),
    "hardtanh": replace(POINTWISE, clips=_argument_bounds("min_val", "max_val")),
    "clamp": replace(POINTWISE, clips=_argument_bounds("min", "max")),
    "clamp_min": replace(POINTWISE, clips=_argument_bounds("min", "")),
    "prelu": OpRule(prelu, keeps_apart=no_axis, channels="same"),
}
