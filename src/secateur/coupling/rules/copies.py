"""Label rules of copies, casts, dropout, and constants."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import Labels, Weight, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.literals import result_shape
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.position_axes import any_axis, idle_dropout
from secateur.graph.operators import operator_name


def first_argument(op: OpContext) -> Labels:
    """Pass on the labels of the first argument."""
    value = op.args["self"] if "self" in op.args else op.args["input"]
    if isinstance(value, Weight):
        return value
    labels: Tensor = value
    return labels.expand(op.shape)


def broadcast_tensors(op: OpContext) -> list[Labels]:
    """Expand every tensor to the shape of all; the operators that use them couple what meets."""
    values: list[Labels] = list(op.args["tensors"])
    activations = [value for value in values if isinstance(value, Tensor) and bool(value.any())]

    def expand(value: Labels, shape: torch.Size) -> Labels:
        if isinstance(value, Weight):
            return replace(value, labels=tuple(labels.expand(shape) for labels in value.labels), is_plain=False)
        expanded_labels = value.expand(shape)
        repeated_axes = {
            axis for axis in range(len(shape)) if expanded_labels.shape[axis] != _axis_length(value, axis - len(shape))
        }
        return _labels_of_repeated(
            expanded_labels, [activation.expand(shape) for activation in activations], repeated_axes
        )

    return [expand(value, shape) for value, shape in zip(values, op.shape, strict=True)]


def _axis_length(value: Tensor, axis: int) -> int:
    """Return the length of an axis, counted from the last one; 1 for axes in front of the first."""
    return value.shape[axis] if -axis <= value.dim() else 1


def _labels_of_repeated(labels: Tensor, others: Sequence[Tensor], repeated_axes: set[int]) -> Tensor:
    """Return the labels of a value without units that is repeated along some axes: those of what has units there."""
    if not bool(labels.any()):
        for other in others:
            if labelled_axes(other) <= repeated_axes:
                return other
    return labels


def dropout(op: OpContext) -> Labels:
    """Pass labels, and note which dropout module acts on them."""
    labels = op.activation("input")
    stack = op.node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1][:2] if stack else ("", "")
    if "Dropout" in str(kind):
        op.tracer.notes.dropouts.append((str(path), torch.unique(squeeze_expanded(labels))))
    return labels


def label_constant(op: OpContext) -> Labels:
    """Give labels to one value everywhere: as many entries as what it meets has units."""
    return op.tracer.constant(op.node, op.shape, range(len(op.shape)))


def couple_overwritten(op: OpContext) -> Tensor:
    """Couple what is written to a tensor with the entries that it replaces, all of them."""
    source = op.activation("src").expand(op.shape)
    op.couple(op.tracer.activation(op.args["self"], op.node, labelled_axes(source)), source)
    return source


def gives_shape_alone(node: Node) -> bool:
    """Return whether only the shape of a result is used, for constants and random numbers."""
    return all(operator_name(user).startswith("new_") or operator_name(user).endswith("_like") for user in node.users)


COPY = OpRule(first_argument, copies=True, gates="passes", channels="same")

RULES: RuleTable = {
    "contiguous": replace(COPY, keeps_apart=any_axis),
    "to _to_copy type_as clone alias": COPY,
    "detach": OpRule(
        first_argument, copies=True, straight_through=lambda target, args, kwargs: args[0], channels="same"
    ),
    "lift_fresh_copy fill zero zeros_like ones_like full_like empty_like rand_like randn_like randint_like "
    "bernoulli uniform exponential geometric log_normal cauchy normal_functional poisson": OpRule(
        first_argument, channels="same"
    ),
    "copy": OpRule(
        couple_overwritten, straight_through=lambda target, args, kwargs: args[1].to(args[0]).expand_as(args[0])
    ),
    "zeros ones full empty new_zeros new_ones new_full new_empty": OpRule(label_constant, result_shape("size")),
    "rand randn randint": OpRule(label_constant),
    "dropout": replace(COPY, labels=dropout, keeps_apart=idle_dropout),
    "dropout_ feature_dropout alpha_dropout feature_alpha_dropout": OpRule(dropout, channels="same"),
    "broadcast_tensors": OpRule(broadcast_tensors),
}
