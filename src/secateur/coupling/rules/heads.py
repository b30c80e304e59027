"""Units along a batch axis of products, as heads of attention lie."""

from torch import Tensor

from secateur.coupling.labels import Labels, Weight, labelled_axes, squeeze_expanded
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.parameter_axes import label_tensors


def batch_axes(value: Labels) -> set[int]:
    """Return the axes of a product's operand, but the last two, along which units lie; counted from the end."""
    rank = len(value.shape)
    return {dim - rank for labels in label_tensors(value) for dim in labelled_axes(labels) if dim < rank - 2}


def operand_labels(op: OpContext, name: str, other: str) -> Tensor:
    """Return an operand's labels; of a parameter, those of the axis that lies along the heads of the other operand."""
    value, other_value = op.args[name], op.args[other]
    if isinstance(value, Weight) and (heads := batch_axes(other_value)):
        return op.tracer.activation(value, op.node, {dim + len(value.shape) for dim in heads})
    return op.activation(name)


def couple_heads(op: OpContext, operands: list[Tensor], batch: set[int]) -> tuple[int, Tensor] | None:
    """Couple what shares an entry of the one batch axis along which units lie.

    Args:
        op: the operator.
        operands: the labels of its operands.
        batch: their batch axes along which units lie, counted from the end.

    Returns:
        The axis and its labels; None where units lie along several axes, or heads are not of one number.
    """
    if len(batch) > 1:
        return None
    (dim,) = batch
    shared_operands = [
        labels
        for labels in operands
        if labels.dim() < -dim or labels.shape[dim] == 1 or _is_expanded_along(labels, dim)
    ]
    separate_operands = [labels for labels in operands if not any(labels is other for other in shared_operands)]
    if len({labels.shape[dim] for labels in separate_operands}) != 1:
        return None
    for labels in shared_operands:
        op.freeze(labels, "is shared by all heads")
    pairs = op.tracer.couplings.pairs
    pairs_before = len(pairs)
    heads, *other_heads = [op.axis_labels(labels, dim) for labels in separate_operands]
    for other in other_heads:
        op.couple(heads, other)
    op.tracer.attention.heads.append((op.node, dim, heads))
    op.tracer.attention.within_heads.extend(pairs[pairs_before:])
    return dim, heads


def _is_expanded_along(labels: Tensor, dim: int) -> bool:
    """Return whether units are repeated along an axis by expanding them."""
    return labels.stride(dim) == 0 and bool(squeeze_expanded(labels).any())
