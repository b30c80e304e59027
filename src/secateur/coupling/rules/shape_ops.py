"""Label rules of operators that move or repeat entries: they are executed on the labels themselves."""

from typing import Any

from torch import Tensor

from secateur.coupling.labels import Labels, Weight, frozen_labels, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.literals import result_shape, unflattened_sizes
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import join_axes, label_tensors, map_labels
from secateur.coupling.rules.position_axes import is_unflattened
from secateur.graph.operators import arguments


def source_labels(op: OpContext) -> Labels:
    """Return the labels of the first argument."""
    value: Labels = op.args["self" if "self" in op.args else "input"]
    return value


def move(op: OpContext) -> Any:
    """Run the operator itself (a transpose and the like) on labels."""
    target: Any = op.node.target
    options = {name: value for name, value in op.args.items() if name not in ("self", "input")}
    return map_labels(source_labels(op), lambda labels: target(labels, **options))


def reshape(op: OpContext) -> Any:
    """Reshape labels, and record that the result must remain rectangular."""
    value = source_labels(op)
    if isinstance(value, Tensor):
        result = value.reshape(op.shape)
        op.tracer.couplings.rectangles.append((op.node, result))
        return result
    return map_labels(value, lambda labels: labels.reshape(op.shape))


def expand(op: OpContext) -> Any:
    """Repeat labels; in the shape of another tensor they are as many as that has units."""
    like = op.args.get("other")
    value = _without_single_unit(op, source_labels(op))
    if isinstance(like, Tensor) and isinstance(value, Tensor) and not bool(value.any()):
        expanded_axes = {
            dim
            for dim in labelled_axes(like)
            if dim - like.dim() + value.dim() < 0 or value.shape[dim - like.dim()] == 1
        }
        if expanded_axes == labelled_axes(like):
            return like
    if isinstance(value, Tensor) and not bool(value.any()):
        return _constant_along_new_axes(op, value)
    expanded_labels: Labels = map_labels(value, lambda labels: labels.expand(op.shape))
    if isinstance(expanded_labels, Weight) and op.tracer.is_constant(expanded_labels):
        return join_axes(expanded_labels, _constant_along_new_axes(op, value))
    return expanded_labels


def _without_single_unit(op: OpContext, value: Labels) -> Labels:
    """Freeze a unit that is the only one, such as a map of one channel: it is repeated for all units that it meets."""
    if isinstance(value, Tensor) and bool(value.any()) and squeeze_expanded(value).numel() == 1:
        op.freeze(value, "is a single unit, which is repeated")
        return frozen_labels(value.shape)
    return value


def _constant_along_new_axes(op: OpContext, value: Labels) -> Labels:
    """Give labels to the axes along which a value without units is repeated: it is the same all along them."""
    lead = len(op.shape) - len(value.shape)
    values = arguments(op.node)
    sizes = values.get("size", values.get("repeats", op.shape))  # without any, it is the shape of another tensor
    axes = [
        dim
        for dim, length in enumerate(op.shape)
        if length > 1 and (dim < lead or value.shape[dim - lead] == 1) and sizes[dim] == length
    ]
    return op.tracer.constant(op.node, op.shape, axes)


def repeat(op: OpContext) -> Any:
    """Give the repetitions of a whole axis of units the labels of these units."""
    value = _without_single_unit(op, source_labels(op))
    if isinstance(value, Tensor) and not bool(value.any()):
        return _constant_along_new_axes(op, value)
    counts = op.args["repeats"] if "repeats" in op.args else op.args["dims"]
    return map_labels(value, lambda labels: labels.tile(counts))


def fix_positions(op: OpContext) -> Any:
    """Freeze units along axes whose positions mean something else once units are removed."""
    value = source_labels(op)
    dims = op.args.get("dims", op.args.get("dim", op.args.get("dimension")))
    dims = [dims] if isinstance(dims, int) else dims or range(len(value.shape))
    for labels in label_tensors(value):
        if labelled_axes(labels) & {dim % labels.dim() for dim in dims}:
            op.freeze(labels, "moves these units to fixed positions")
    return move(op)


RULES: RuleTable = {
    "permute transpose squeeze unsqueeze": OpRule(move, gates="passes", channels="move"),
    "t movedim moveaxis swapaxes adjoint numpy_T mT": OpRule(move, channels="move"),
    "flip": OpRule(move, channels="flip"),
    "view": OpRule(reshape, literals=result_shape("size"), gates="passes", channels="reshape"),
    "reshape": OpRule(reshape, literals=result_shape("shape"), gates="passes", channels="reshape"),
    "flatten": OpRule(reshape, keeps_apart=is_unflattened, gates="passes", channels="reshape"),
    "unflatten": OpRule(reshape, literals=unflattened_sizes, gates="passes", channels="reshape"),
    "_unsafe_view": OpRule(reshape, literals=result_shape("size"), channels="reshape"),
    "view_as reshape_as": OpRule(reshape, channels="reshape"),
    "expand broadcast_to": OpRule(expand, literals=result_shape("size"), channels="move"),
    "expand_as": OpRule(expand, channels="move"),
    "repeat": OpRule(repeat, literals=result_shape("repeats"), channels="move"),
    "tile": OpRule(repeat, literals=result_shape("dims"), channels="move"),
    "roll unfold index_select diagonal": OpRule(fix_positions, channels="move"),
}
