"""Label rules of reductions over some axes, and reductions over the units that are kept."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.labels import Labels, Weight, entries_along, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import map_labels, narrow_axes
from secateur.coupling.rules.position_axes import unreduced
from secateur.graph.operators import operator_name


def couple_along(op: OpContext, labels: Tensor, dims: set[int], reason: str) -> Tensor | None:
    """Couple what differs along some axes, and return labels that do not differ there.

    None, and all frozen for the reason, where the units lie along these axes alone.
    """
    differing = labelled_axes(labels)
    crossed = differing & dims
    if crossed and crossed == differing:
        op.freeze(labels, reason)
        return None
    for dim in crossed:
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
    coupled = couple_along(op, labels, {dim}, "is normalised over these units")
    return frozen_labels(op.shape) if coupled is None else coupled


def reduction(op: OpContext) -> Any:
    """Couple what differs along the axes of a maximum, a product and the like; the larger of two tensors passes."""
    if op.args.get("other") is not None:
        return elementwise(op)
    argument = _name_of_input(op)
    if is_parameter(op, argument):
        return _reduce_parameter(op, argument, reads=False)
    labels = op.activation(argument)
    coupled = couple_along(op, labels, _reduced_axes(op, labels), "is reduced over these units")
    return op.frozen() if coupled is None else _reduce(op, coupled)


def summation(op: OpContext) -> Any:
    """Read the units along the one axis of a sum, a mean, a variance or a Euclidean norm."""
    argument = _name_of_input(op)
    is_euclidean = _is_euclidean(op)
    if is_parameter(op, argument):
        return _reduce_parameter(op, argument, reads=is_euclidean)
    labels = op.activation(argument)
    reduced = labelled_axes(labels) & _reduced_axes(op, labels)
    if not reduced or reduced != labelled_axes(labels) or len(reduced) > 1 or not is_euclidean:
        return reduction(op)
    (dim,) = reduced
    op.read(argument, dim, op.axis_labels(labels, dim))
    return op.frozen()


def _is_euclidean(op: OpContext) -> bool:
    """Return whether a norm is the root of the sum of squares, as it is without an order; other operators have none."""
    order = op.args.get("ord", op.args.get("p", 2))
    if operator_name(op.node) == "linalg_norm" and order is not None and len(_reduced_axes(op, op.args["self"])) > 1:
        return False  # of a matrix, 2 is the largest singular value
    return order is None or order == 2


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
    narrow = narrow_axes(op, remaining, _reduced_axes(op, weight), "is reduced over these units")
    return map_labels(narrow, lambda labels: _reduce(op, labels))


def read_along(op: OpContext, argument: str, dims: set[int]) -> Labels:
    """Read the units of a parameter along some axes, and return the parameter without these axes."""
    weight: Weight = op.args[argument]
    remaining = []
    for key, labels in zip(weight.keys, weight.labels, strict=True):
        crossed = labelled_axes(labels) & dims
        if len(crossed) == 1 and labelled_axes(labels) == crossed:
            (dim,) = crossed
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
    reduced = _reduced_axes(op, op.args[_name_of_input(op)])
    for dim in reduced:
        labels = labels.narrow(dim, 0, 1)
    shapes = (op.shape,) if isinstance(op.shape, torch.Size) else tuple(op.shape)
    if len(shapes[0]) < labels.dim():
        labels = labels[tuple(0 if dim in reduced else slice(None) for dim in range(labels.dim()))]
    return labels.expand(shapes[0]) if isinstance(op.shape, torch.Size) else tuple(labels.expand(s) for s in shapes)


def masked_mean(present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Return the mean of the entries that are present."""
    dims = _dims(self, dim)
    count = present.expand(self.shape).sum(dims, keepdim=keepdim).clamp_min(1)
    return (self * present).sum(dims, keepdim=keepdim) / count


def masked_variance(
    present: Tensor,
    self: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    unbiased: bool = True,
    correction: Any = None,
    **_: Any,
) -> Tensor:
    """Return the variance of the entries that are present; of one entry 0, and not NaN."""
    dims = _dims(self, dim)
    count = present.expand(self.shape).sum(dims, keepdim=True)
    centred = (self - (self * present).sum(dims, keepdim=True) / count.clamp_min(1)) * present
    degrees = count - (float(unbiased) if correction is None else correction)
    variance = centred.square().sum(dims, keepdim=True) / degrees.clamp_min(1)
    return variance if keepdim else variance.squeeze(dims)


def masked_deviation(present: Tensor, self: Tensor, dim: Any = None, **options: Any) -> Tensor:
    """Return the standard deviation of the entries that are present; the root of 0 gets a derivative of 0."""
    variance = masked_variance(present, self, dim, **options)
    smallest = torch.finfo(variance.dtype).tiny
    return torch.where(variance == 0, 0, variance.clamp_min(smallest).sqrt())


def masked_variance_and_mean(
    present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    """Return the variance and the mean of the entries that are present."""
    return masked_variance(present, self, dim, keepdim, **options), masked_mean(present, self, dim, keepdim)


def masked_deviation_and_mean(
    present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **options: Any
) -> Any:
    """Return the standard deviation and the mean of the entries that are present."""
    return masked_deviation(present, self, dim, keepdim=keepdim, **options), masked_mean(present, self, dim, keepdim)


def masked_norm(present: Tensor, self: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Return the Euclidean norm of the entries that are present; 1 where there are none, as it is used to divide."""
    dims = _dims(self, dim)
    length = torch.linalg.vector_norm(self * present, dim=dims, keepdim=keepdim)
    count = (present.expand(self.shape) != 0).sum(dims, keepdim=keepdim)
    return torch.where(count == 0, 1, length)


def masked_softmax(present: Tensor, self: Tensor, dim: int, **_: Any) -> Tensor:
    """Return the softmax over the entries that are present; zeros where there are none."""
    absent = present.expand(self.shape) == 0
    return self.masked_fill(absent, float("-inf")).softmax(dim).masked_fill(absent, 0)


def _dims(x: Tensor, dim: Any) -> list[int]:
    return [dim] if isinstance(dim, int) else dim or list(range(x.dim()))


RULES: RuleTable = {
    "softmax": OpRule(softmax, masked=masked_softmax, channels="same"),
    "log_softmax _softmax _log_softmax": OpRule(softmax, channels="same"),
    "mean": OpRule(summation, masked=masked_mean, keeps_apart=unreduced, gates="passes", channels="mean"),
    "sum": OpRule(summation, gates="passes", channels="sum"),
    "var": OpRule(summation, masked=masked_variance, channels="sum"),
    "std": OpRule(summation, masked=masked_deviation, channels="sum"),
    "var_mean": OpRule(summation, masked=masked_variance_and_mean, channels="sum"),
    "std_mean": OpRule(summation, masked=masked_deviation_and_mean, channels="sum"),
    "linalg_vector_norm linalg_norm norm": OpRule(summation, masked=masked_norm, channels="sum"),
    "amax amin max min argmax argmin any all logsumexp prod": OpRule(reduction),
}
