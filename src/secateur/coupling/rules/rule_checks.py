"""Checks of the rules that users register: of their labels while tracing, of masked operators on the example."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import Weight
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.registry import qualified_name, registered_rules, rule_of
from secateur.coupling.shape_literals import ShapeLiteral, shape_literals_of
from secateur.coupling.trace_records import Read
from secateur.errors import OperatorRuleError, SecateurError
from secateur.graph.operators import module_path
from secateur.utils.failure_text import failure_text


def is_registered(node: Node) -> bool:
    """Return whether an operator has a rule that a user registered."""
    return qualified_name(node) in registered_rules


def apply_registered(op: OpContext) -> tuple[Any, Sequence[ShapeLiteral]]:
    """Return the labels and the shape literals by the rule that a user registered for an operator, checked.

    Raises:
        OperatorRuleError: the rule fails, or does not return labels in the shape of the result.
    """
    rule, operator = rule_of(op.node), operator_text(op.node)
    reads = op.tracer.notes.reads
    reads_before = len(reads)
    try:
        result = rule.labels(op)
    except SecateurError:
        raise
    except Exception as failure:
        raise OperatorRuleError(
            f"the rule of {operator} fails with {failure_text(failure)}; its arguments are "
            f"{label_shapes(op.args)}, by these names in `op.args`, and its result has shape {_size_text(op.shape)}"
        ) from failure
    if not _fits(result, op.shape, op.tracer.space.size):
        raise OperatorRuleError(
            f"the rule of {operator} returns {label_shapes(result)} where labels in the shape of the result, "
            f"{_size_text(op.shape)}, are needed; return op.broadcast(labels, dim) with one label for each index "
            "along dim, or labels of an argument that has this shape"
        )
    _check_reads(operator, op, reads[reads_before:], rule.masked is not None)
    return result, _registered_literals(op, result)


def _registered_literals(op: OpContext, result: Any) -> Sequence[ShapeLiteral]:
    """Return the shape literals by a rule that a user registered.

    Raises:
        OperatorRuleError: its function fails.
    """
    try:
        return tuple(shape_literals_of(op, result))
    except Exception as failure:
        raise OperatorRuleError(
            f"literals= of {operator_text(op.node)} fails with {failure_text(failure)}; it yields (argument, position "
            f"in it or None, labels of the entries (entries, labels of each)); its arguments are "
            f"{label_shapes(op.args)}, by these names in `op.args`"
        ) from failure


def _check_reads(operator: str, op: OpContext, reads: Sequence[Read], has_masked: bool) -> None:
    """Check the axes that a rule reads.

    Raises:
        OperatorRuleError: its argument has no such axis, or there are several axes and a masked operator.
    """
    for read in reads:
        _check_read(operator, op, read)
    if has_masked and len(reads) > 1:
        raise OperatorRuleError(
            f"the rule of {operator} reads {len(reads)} axes, but masked= gets the presence along one; read one axis "
            "and freeze the others"
        )


def _check_read(operator: str, op: OpContext, read: Read) -> None:
    """Check that a rule reads an axis that its argument has, by one label for each index.

    Raises:
        OperatorRuleError: it does not.
    """
    argument = op.args.get(read.argument)
    if not isinstance(argument, Tensor | Weight):  # a borrowed rule reads by the names of its own operator
        return
    shape = tuple(argument.shape)
    is_axis = isinstance(read.dim, int) and -len(shape) <= read.dim < len(shape)
    if not is_axis or tuple(getattr(read.labels, "shape", ())) != (shape[read.dim],):
        raise OperatorRuleError(
            f"the rule of {operator} calls op.read({read.argument!r}, {read.dim!r}, labels) with labels of "
            f"{label_shapes(read.labels)}; give an argument by its name, the number of one of its axes, and one label "
            f"for each index along it; the arguments are {label_shapes(op.args)}"
        )


def _fits(result: Any, shape: Any, size: int) -> bool:
    """Return whether the result of a rule consists of labels below a size, in a shape."""
    if isinstance(shape, torch.Size):
        if isinstance(result, Weight):
            return result.shape == shape
        is_labels = isinstance(result, Tensor) and result.dtype == torch.long and result.shape == shape
        return is_labels and (result.numel() == 0 or (int(result.min()) >= 0 and int(result.max()) < size))
    if not isinstance(shape, list | tuple):
        return True
    if not isinstance(result, list | tuple) or len(result) != len(shape):
        return False
    return all(_fits(item, item_shape, size) for item, item_shape in zip(result, shape, strict=True))


def operator_text(node: Node) -> str:
    """Return an operator's name and its module, in words."""
    return f"{qualified_name(node)} (in {module_path(node) or 'the model itself'})"


def label_shapes(value: Any) -> str:
    """Describe labels by their shapes."""
    if isinstance(value, Tensor | Weight):
        return _size_text(value.shape)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {label_shapes(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(label_shapes(item) for item in value)}]"
    return repr(value)


def _size_text(shape: Any) -> str:
    return str(tuple(shape)) if isinstance(shape, torch.Size) else str(shape)
