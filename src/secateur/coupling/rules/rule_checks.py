"""Checks of the rules that users register: of their labels while tracing, of masked operators on the example."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import Weight
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.op_rule import MaskedOp
from secateur.coupling.rules.registry import is_borrowed, qualified_name, registered_rules, rule_of
from secateur.coupling.shape_literals import ShapeLiteral, shape_literals_of
from secateur.coupling.trace_records import Read
from secateur.errors import OperatorRuleError, SecateurError
from secateur.graph.operators import arguments, module_path
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.utils.collected_warnings import warn
from secateur.utils.failure_text import failure_text


def is_registered(node: Node) -> bool:
    """Return whether an operator has a rule that a user registered."""
    return qualified_name(node) in registered_rules


def apply_registered(op: OpContext) -> tuple[Any, Sequence[ShapeLiteral]]:
    """Return the labels and the shape literals by the rule that a user registered for an operator, checked.

    Raises:
        OperatorRuleError: the rule fails, or does not return labels in the shape of the result.
    """
    rule, operator = rule_of(op.node), _operator_text(op.node)
    reads = op.tracer.notes.reads
    before = len(reads)
    try:
        result = rule.labels(op)
    except SecateurError:
        raise
    except Exception as failure:
        raise OperatorRuleError(
            f"the rule of {operator} fails with {failure_text(failure)}; its arguments are "
            f"{_label_shapes(op.args)}, by these names in `op.args`, and its result has shape {_size_text(op.shape)}"
        ) from failure
    if not _fits(result, op.shape, op.tracer.space.size):
        raise OperatorRuleError(
            f"the rule of {operator} returns {_label_shapes(result)} where labels in the shape of the result, "
            f"{_size_text(op.shape)}, are needed; return op.broadcast(labels, dim) with one label for each index "
            "along dim, or labels of an argument that has this shape"
        )
    _check_reads(operator, op, reads[before:], rule.masked is not None)
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
            f"literals= of {_operator_text(op.node)} fails with {failure_text(failure)}; it yields (argument, position "
            f"in it or None, labels of the entries (entries, labels of each)); its arguments are "
            f"{_label_shapes(op.args)}, by these names in `op.args`"
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
            f"{_label_shapes(read.labels)}; give an argument by its name, the number of one of its axes, and one label "
            f"for each index along it; the arguments are {_label_shapes(op.args)}"
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


def _operator_text(node: Node) -> str:
    return f"{qualified_name(node)} (in {module_path(node) or 'the model itself'})"


def _label_shapes(value: Any) -> str:
    """Describe labels by their shapes."""
    if isinstance(value, Tensor | Weight):
        return _size_text(value.shape)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_label_shapes(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(_label_shapes(item) for item in value)}]"
    return repr(value)


def _size_text(shape: Any) -> str:
    return str(tuple(shape)) if isinstance(shape, torch.Size) else str(shape)


def masked_checks(reads: Mapping[Node, tuple[str, int]]) -> dict[Node, OpOverride]:
    """Return overrides that check the masked operators of users while the program runs.

    With every unit present a masked operator must compute what the operator computes; else the run raises an
    `OperatorRuleError`.

    Args:
        reads: the operators that read units, with the argument and its axis.
    """
    rules = {node: rule_of(node).masked for node in reads if is_registered(node)}
    return {node: _checked_call(node, masked, *reads[node]) for node, masked in rules.items() if masked is not None}


def warn_of_unused_masks(program: Program, reads: Mapping[Node, tuple[str, int]]) -> None:
    """Warn of operators with a masked form of the user's that is never called, as their rules read no axis.

    Args:
        program: the program.
        reads: the operators that read units, with the argument and its axis.
    """
    calls = [node for node in program.nodes if node.op == "call_function" and is_registered(node)]
    readers = {qualified_name(node) for node in calls if node in reads}
    for name in dict.fromkeys(map(qualified_name, calls)):
        rule = registered_rules[name]
        if rule.masked is not None and name not in readers and not is_borrowed(rule):
            warn(
                f"masked= of {name} is not used in this network, as its rule reads no axis: call "
                "op.read(argument, dim, labels) for the axis that the operator sums or normalises over, or leave "
                "masked= out"
            )


def _checked_call(node: Node, masked: MaskedOp, name: str, dim: int) -> OpOverride:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        expected = target(*args, **kwargs)
        values = {**arguments(node), **dict(zip(names, args, strict=False)), **kwargs}
        x = values[name]
        present = x.new_ones([length if axis == dim % x.dim() else 1 for axis, length in enumerate(x.shape)])
        try:
            result = masked(present, **values)
        except Exception as failure:
            raise OperatorRuleError(
                f"masked= of {_operator_text(node)} fails with {failure_text(failure)}; it is called with "
                f"present of shape {tuple(present.shape)} and the operator's own arguments, {', '.join(names)}"
            ) from failure
        difference = _result_difference(result, expected)
        if difference:
            raise OperatorRuleError(
                f"masked= of {_operator_text(node)} gives another result than the operator where all units are present:"
                f" {difference}; compute what the operator computes, with `present` as a factor of its sums and counts"
            )
        return expected

    return handler


def _result_difference(result: Any, expected: Any) -> str:
    """Describe how a result differs from the expected one; empty where it is the same but for rounding."""
    if isinstance(expected, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(expected):
            return f"{_label_shapes(result)} where the operator gives {_label_shapes(expected)}"
        return next(filter(None, map(_result_difference, result, expected)), "")
    if not isinstance(expected, Tensor):
        return ""
    if not isinstance(result, Tensor) or result.shape != expected.shape:
        return f"shape {_label_shapes(result)} where the operator gives {_label_shapes(expected)}"
    tolerance = 100 * torch.finfo(expected.dtype).eps if expected.is_floating_point() else 0.0
    sizes = expected.abs()[torch.isfinite(expected)]
    scale = float(sizes.max()) if sizes.numel() else 0.0
    result = result.to(expected)
    if torch.allclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return ""
    differs = ~torch.isclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    position = tuple(torch.nonzero(differs)[0].tolist())
    return f"{result[position]:.4g} where the operator gives {expected[position]:.4g}, at index {position}"
