"""Label rules of reductions over some axes."""

from operator import getitem
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.labels import Labels, Weight, entries_along, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.masked_reductions import (
    masked_deviation,
    masked_deviation_and_mean,
    masked_extremum,
    masked_mean,
    masked_norm,
    masked_softmax,
    masked_variance,
    masked_variance_and_mean,
    norm_order,
)
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import map_labels, narrow_axes
from secateur.coupling.rules.position_axes import is_unreduced
from secateur.graph.operators import arguments, operator_name


def couple_along(op: OpContext, labels: Tensor, dims: set[int], reason: str) -> Tensor | None:
    """Couple what differs along some axes, and return labels that do not differ there.

    None, and all frozen for the reason, where the units lie along these axes alone.
    """
    differing = labelled_axes(labels)
    crossed_axes = differing & dims
    if crossed_axes and crossed_axes == differing:
        op.freeze(labels, reason)
        return None
    for dim in crossed_axes:
        first = labels.narrow(dim, 0, 1)
        op.couple(labels, first)
        labels = first.expand(labels.shape)
    return labels


def softmax(op: OpContext) -> Tensor:
    """Couple what differs along the axis; no unit may be left out of the sum there, but for experts, which are read."""
    labels = op.activation("self")
    dim = op.args["dim"] % labels.dim()
    if op.tracer.scope.stack_lengths and labelled_axes(labels) == {dim}:
        op.read("self", dim, op.axis_labels(labels, dim))
        return labels
    coupled_labels = couple_along(op, labels, {dim}, "is normalised over these units")
    return frozen_labels(op.shape) if coupled_labels is None else coupled_labels


def reduction(op: OpContext) -> Any:
    """Couple what differs along the axes of a maximum, a product and the like; the larger of two tensors passes."""
    if op.args.get("other") is not None:
        return elementwise(op)
    argument = _name_of_input(op)
    if is_parameter(op, argument):
        return _reduce_parameter(op, argument, reads=False)
    labels = op.activation(argument)
    coupled_labels = couple_along(op, labels, _reduced_axes(op, labels), "is reduced over these units")
    return op.frozen() if coupled_labels is None else _reduce(op, coupled_labels)


def summation(op: OpContext) -> Any:
    """Read the units along the one axis of a sum, a mean, a variance or a Euclidean norm."""
    argument = _name_of_input(op)
    ignores_zeros = _ignores_zeros(op)
    if is_parameter(op, argument):
        return _reduce_parameter(op, argument, reads=ignores_zeros)
    return _read_reduced(op, argument) if ignores_zeros else reduction(op)


def extremum(op: OpContext) -> Any:
    """Read the units along the one axis of a maximum or the like, unless something reads at which of them it lies."""
    positions = [user for user in op.node.users if user.target is getitem and user.args[1] == 1]
    is_read = op.args.get("other") is None and not any(user.users for user in positions)
    if not is_read or is_parameter(op, "self") or not arguments(op.node)["self"].meta["val"].is_floating_point():
        return reduction(op)
    return _read_reduced(op, "self")


def _read_reduced(op: OpContext, argument: str) -> Any:
    """Read the units along the reduced axes where they lie along one of these alone; else couple along them."""
    labels = op.activation(argument)
    reduced_axes = labelled_axes(labels) & _reduced_axes(op, labels)
    if len(reduced_axes) != 1 or reduced_axes != labelled_axes(labels):
        return reduction(op)
    (dim,) = reduced_axes
    op.read(argument, dim, op.axis_labels(labels, dim))
    return op.frozen()


def _ignores_zeros(op: OpContext) -> bool:
    """Return whether zeros change nothing: in all sums, and in norms of a vector of a positive order."""
    order = norm_order(op.args)
    if operator_name(op.node) == "linalg_norm" and "ord" in op.args and len(_reduced_axes(op, op.args["self"])) > 1:
        return op.args["ord"] is None  # of a matrix, 2 is the largest singular value
    return isinstance(order, int | float) and order > 0


def _name_of_input(op: OpContext) -> str:
    return "self" if "self" in op.args else "x"


def is_parameter(op: OpContext, argument: str) -> bool:
    """Return whether an argument is a parameter or buffer, or computed from them."""
    value = op.args[argument]
    return isinstance(value, Weight) and not op.tracer.is_constant(value)


def _reduce_parameter(op: OpContext, argument: str, reads: bool) -> Any:
    """Pass the other axes of a parameter on its way to be a weight, and read units along the reduced axes."""
    weight: Weight = op.args[argument]
    remaining = read_along(op, argument, _reduced_axes(op, weight)) if reads else weight
    narrow_labels = narrow_axes(op, remaining, _reduced_axes(op, weight), "is reduced over these units")
    return map_labels(narrow_labels, lambda labels: _reduce(op, labels))


def read_along(op: OpContext, argument: str, dims: set[int]) -> Labels:
    """Read the units of a parameter along some axes, and return the parameter without these axes."""
    weight: Weight = op.args[argument]
    remaining = []
    for key, labels in zip(weight.keys, weight.labels, strict=True):
        crossed_axes = labelled_axes(labels) & dims
        if len(crossed_axes) == 1 and labelled_axes(labels) == crossed_axes:
            (dim,) = crossed_axes
            op.read(argument, dim, entries_along(labels, dim))
        else:
            remaining.append((key, labels))
    if not remaining:
        return frozen_labels(weight.shape)
    keys, axes = zip(*remaining, strict=True)
    return Weight(weight.name, keys, axes, is_plain=False)


def _reduced_axes(op: OpContext, labels: Labels) -> set[int]:
    dims, rank = op.args.get("dim"), len(labels.shape)
    return {dim % rank for dim in ([dims] if isinstance(dims, int) else dims or range(rank))}


def _reduce(op: OpContext, labels: Tensor) -> Any:
    """Return labels that do not differ along the reduced axes in the shape of the result."""
    reduced_axes = _reduced_axes(op, op.args[_name_of_input(op)])
    for dim in reduced_axes:
        labels = labels.narrow(dim, 0, 1)
    shapes = (op.shape,) if isinstance(op.shape, torch.Size) else tuple(op.shape)
    if len(shapes[0]) < labels.dim():
        labels = labels[tuple(0 if dim in reduced_axes else slice(None) for dim in range(labels.dim()))]
    return labels.expand(shapes[0]) if isinstance(op.shape, torch.Size) else tuple(labels.expand(s) for s in shapes)


RULES: RuleTable = {
    "softmax": OpRule(softmax, masked=masked_softmax, channels="same"),
    "log_softmax _softmax _log_softmax": OpRule(softmax, channels="same"),
    "mean": OpRule(summation, masked=masked_mean, keeps_apart=is_unreduced, gates="passes", channels="mean"),
    "sum": OpRule(summation, gates="passes", channels="sum"),
    "var": OpRule(summation, masked=masked_variance, channels="sum"),
    "std": OpRule(summation, masked=masked_deviation, channels="sum"),
    "var_mean": OpRule(summation, masked=masked_variance_and_mean, channels="sum"),
    "std_mean": OpRule(summation, masked=masked_deviation_and_mean, channels="sum"),
    "linalg_vector_norm linalg_norm norm": OpRule(summation, masked=masked_norm, channels="sum"),
    "amax max": OpRule(extremum, masked=masked_extremum(torch.amax, -1)),
    "amin min": OpRule(extremum, masked=masked_extremum(torch.amin, 1)),
    "logsumexp": OpRule(extremum, masked=masked_extremum(torch.logsumexp, -1)),
    "aminmax argmax argmin any all prod median nanmedian mode kthvalue nansum count_nonzero": OpRule(reduction),
}
