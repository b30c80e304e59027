"""Label rules of matrix products: linear layers, products of activations, bilinear layers, distances."""

import math

from torch import Tensor, nn

from secateur.coupling.labels import Labels, Weight, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.elementwise import CROSSES, elementwise, fewer_units
from secateur.coupling.rules.heads import batch_axes, couple_heads, operand_labels
from secateur.coupling.rules.layer_units import COMPUTED_WEIGHT, CROSSED, couple_layer, pass_each_unit
from secateur.coupling.rules.module_attributes import bilinear_attributes, conv1d_attributes, linear_attributes
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import label_tensors


def linear(op: OpContext) -> Tensor:
    """Read the last axis; the rows of the weight are new units."""
    return couple_layer(op, "input", "weight", contracted_axis=-1, inner_axis=1, outer_axis=0)


def matmul(op: OpContext) -> Tensor:
    """Multiply two tensors, of which one may be a parameter."""
    a_name, b_name = _operand_names(op)
    a, b = op.args[a_name], op.args[b_name]
    if len(a.shape) > 1 and isinstance(a, Tensor) and len(b.shape) == 1 and isinstance(b, Weight):
        return _vector_product(op, a_name, b_name)
    if len(a.shape) < 2 or len(b.shape) < 2:
        return _freeze(op, "is a product with a vector")
    is_stack = isinstance(b, Weight) and isinstance(a, Tensor) and not batch_axes(a)
    is_stack = is_stack and not op.tracer.scope.stack_lengths
    if isinstance(b, Weight) and math.prod(b.shape[:-2]) == 1:
        return couple_layer(
            op, a_name, b_name, contracted_axis=-1, inner_axis=len(b.shape) - 2, outer_axis=len(b.shape) - 1
        )
    if isinstance(a, Weight) and math.prod(a.shape[:-2]) == 1:
        rows, columns = len(a.shape) - 2, len(a.shape) - 1
        return _add_bias(op, couple_layer(op, b_name, a_name, contracted_axis=-2, inner_axis=columns, outer_axis=rows))
    if is_stack:
        op.tracer.experts.stacks.append((op.node, b, a))
        return couple_layer(
            op, a_name, b_name, contracted_axis=-1, inner_axis=len(b.shape) - 2, outer_axis=len(b.shape) - 1
        )
    return _add_bias(op, _activation_product(op, a_name, b_name))


def _operand_names(op: OpContext) -> tuple[str, str]:
    names = list(op.args)
    second_name = next(name for name in ("mat2", "other", "batch2") if name in names)
    return names[names.index(second_name) - 1], second_name


def _freeze(op: OpContext, reason: str) -> Tensor:
    frozen: Tensor = freeze_arguments(op, reason)
    return frozen


def _vector_product(op: OpContext, x_name: str, weight_name: str) -> Tensor:
    """Read the last axis with a parameter of one axis: the result has one entry in its place, which is no unit."""
    x, weight = op.activation(x_name), op.args[weight_name]
    dim = x.dim() - 1
    if labelled_axes(x) - {dim}:
        return pass_each_unit(op, x, dim, [weight], weight.shape[0])
    input_labels = op.axis_labels(x, dim)
    op.couple(op.axis_labels(weight, 0), input_labels)
    op.read(x_name, dim, input_labels)
    return frozen_labels(op.shape)


def _add_bias(op: OpContext, product: Tensor) -> Tensor:
    """Couple the entries of a product with what `addmm` adds to them."""
    if "mat1" not in op.args:
        return product
    total = elementwise(op.with_args({"product": product, "added": op.args["self"]}, op.shape))
    assert isinstance(total, Tensor)
    return total


def _activation_product(op: OpContext, a_name: str, b_name: str) -> Tensor:
    """Couple what shares a batch entry of two activations; without units along a batch axis, what is contracted."""
    a, b = (operand_labels(op, name, other) for name, other in ((a_name, b_name), (b_name, a_name)))
    rank = len(op.shape)
    batch = {dim - rank for t in (a, b) for dim in (d + rank - t.dim() for d in labelled_axes(t)) if dim < rank - 2}
    if not batch or op.tracer.scope.by_width:
        return _matrix_product(op, a_name, a, b, of_heads=bool(batch))
    heads = couple_heads(op, [a, b], batch)
    if heads is None:
        return _freeze(op, CROSSED)
    dim, units = heads
    op.count(math.prod(op.shape) * a.shape[-1] / len(units), units)
    return op.broadcast(units, dim)


def _freeze_one_sided(op: OpContext, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Freeze units along the contracted axis of one operand alone, where the other has none there."""
    in_a, in_b = labelled_axes(a), labelled_axes(b)
    if a.dim() - 1 in in_a and in_b and b.dim() - 2 not in in_b:
        op.freeze(a, CROSSED)
        a = frozen_labels(a.shape)
    elif b.dim() - 2 in in_b and in_a and a.dim() - 1 not in in_a:
        op.freeze(b, CROSSED)
        b = frozen_labels(b.shape)
    return a, b


def _matrix_product(op: OpContext, a_name: str, a: Tensor, b: Tensor, of_heads: bool) -> Tensor:
    axes = []
    a, b = _freeze_one_sided(op, a, b)
    in_a, in_b = {d - a.dim() for d in labelled_axes(a)}, {d - b.dim() for d in labelled_axes(b)}
    if -1 in in_a or -2 in in_b:
        inner = op.axis_labels(a, -1)
        op.couple(inner, op.axis_labels(b, -2))
        op.read(a_name, a.dim() - 1, inner)
        axes.append(inner)
        in_a -= {-2} if -1 in in_a else set()  # what shares a contracted index is coupled, whatever its row
        in_b -= {-1} if -2 in in_b else set()
    if not (in_a or in_b):
        return _freeze(op, CROSSED)
    if -2 in in_a and -1 in in_b:
        crossing = fewer_units(a, b)
        op.freeze(crossing, CROSSES)
        (in_a if crossing is a else in_b).clear()
    rows = op.axis_labels(a, -2) if -2 in in_a else None
    columns = op.axis_labels(b, -1) if -1 in in_b else None
    units = rows if rows is not None else columns
    axes += [] if units is None else [units]
    if of_heads:
        op.tracer.attention.widths.extend(axes)
    op.count(math.prod(op.shape) * a.shape[-1] / math.prod(len(axis) for axis in axes), *axes)
    return frozen_labels(op.shape) if units is None else op.broadcast(units, -2 if rows is not None else -1)


def bilinear(op: OpContext) -> Tensor:
    """Read the last axis of both inputs; the weight's first axis makes units."""
    weight = op.args["weight"]
    if not isinstance(weight, Weight):
        return _freeze(op, COMPUTED_WEIGHT)
    output_labels = op.axis_labels("weight", 0, produces=True)
    if op.args.get("bias") is not None:
        op.couple(op.axis_labels("bias", 0), output_labels)
    input_axes = []
    for axis, name in ((1, "input1"), (2, "input2")):
        x = op.activation(name)
        input_labels = op.axis_labels(x, -1)
        input_axes.append(op.axis_labels("weight", axis))
        op.couple(input_axes[-1], input_labels)
        op.read(name, x.dim() - 1, input_labels)
    op.count(math.prod(op.shape) / len(output_labels), output_labels, *input_axes)
    return op.broadcast(output_labels, -1)


def pairwise_distance(op: OpContext) -> Tensor:
    """Read the last axis of both operands of `cdist`; the rows of a parameter are new units."""
    operands: dict[str, Labels] = {name: op.args[name] for name in ("x1", "x2")}
    batch = {dim for value in operands.values() for dim in batch_axes(value)}
    if batch:
        heads = couple_heads(op, [operand_labels(op, "x1", "x2"), operand_labels(op, "x2", "x1")], batch)
        return _freeze(op, CROSSED) if heads is None else op.broadcast(heads[1], heads[0])
    reads = [op.axis_labels(value, -1) if _has_units(value, -1) else None for value in operands.values()]
    rows = [op.axis_labels(value, -2, produces=True) if _has_units(value, -2) else None for value in operands.values()]
    for name, labels, other in zip(operands, reads, reversed(reads), strict=True):
        if labels is not None:
            op.couple(labels, frozen_labels(()) if other is None else other)
            op.read(name, len(operands[name].shape) - 1, labels)
    if rows[0] is not None and rows[1] is not None:
        return _freeze(op, CROSSED)
    units = next((labels for labels in rows if labels is not None), None)
    if units is None:
        return frozen_labels(op.shape)
    return op.broadcast(units, -2 if units is rows[0] else -1)


def _has_units(value: Labels, dim: int) -> bool:
    """Return whether units lie along an axis, counted from the end."""
    return any(dim + len(value.shape) in labelled_axes(labels) for labels in label_tensors(value))


RULES: RuleTable = {
    "linear": OpRule(linear, layer="linear", attributes={nn.Linear: linear_attributes}),
    "addmm": OpRule(matmul, layer="addmm", attributes={"transformers.pytorch_utils.Conv1D": conv1d_attributes}),
    "matmul mm bmm": OpRule(matmul),
    "bilinear": OpRule(bilinear, attributes={nn.Bilinear: bilinear_attributes}),
    "cdist": OpRule(pairwise_distance),
}
