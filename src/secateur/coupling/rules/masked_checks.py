"""Checks of the masked operators of rules that users register, on the example."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.op_rule import MaskedOp
from secateur.coupling.rules.registry import is_borrowed, qualified_name, registered_rules, rule_of
from secateur.coupling.rules.rule_checks import is_registered, label_shapes, operator_text
from secateur.errors import OperatorRuleError
from secateur.graph.operators import arguments
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.utils.collected_warnings import warn
from secateur.utils.failure_text import failure_text


def masked_checks(reads: Mapping[Node, tuple[str, int]]) -> dict[Node, OpOverride]:
    """Return overrides that check the masked operators of users while the program runs.

    With every unit present a masked operator must compute what the operator computes; else the run raises an
    `OperatorRuleError`.

    Args:
        reads: the operators that read units, with the argument and its axis.
    """
    rules = {node: rule_of(node).masked for node in reads if is_registered(node)}
    return {
        node: _call_with_check(node, masked_op, *reads[node])
        for node, masked_op in rules.items()
        if masked_op is not None
    }


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


def _call_with_check(node: Node, masked_op: MaskedOp, name: str, dim: int) -> OpOverride:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        expected = target(*args, **kwargs)
        values = {**arguments(node), **dict(zip(names, args, strict=False)), **kwargs}
        x = values[name]
        present = x.new_ones([length if axis == dim % x.dim() else 1 for axis, length in enumerate(x.shape)])
        try:
            result = masked_op(present, **values)
        except Exception as failure:
            raise OperatorRuleError(
                f"masked= of {operator_text(node)} fails with {failure_text(failure)}; it is called with "
                f"present of shape {tuple(present.shape)} and the operator's own arguments, {', '.join(names)}"
            ) from failure
        difference = _result_difference(result, expected)
        if difference:
            raise OperatorRuleError(
                f"masked= of {operator_text(node)} gives another result than the operator where all units are present:"
                f" {difference}; compute what the operator computes, with `present` as a factor of its sums and counts"
            )
        return expected

    return handler


def _result_difference(result: Any, expected: Any) -> str:
    """Describe how a result differs from the expected one; empty where it is the same but for rounding."""
    if isinstance(expected, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(expected):
            return f"{label_shapes(result)} where the operator gives {label_shapes(expected)}"
        return next(filter(None, map(_result_difference, result, expected)), "")
    if not isinstance(expected, Tensor):
        return ""
    if not isinstance(result, Tensor) or result.shape != expected.shape:
        return f"shape {label_shapes(result)} where the operator gives {label_shapes(expected)}"
    tolerance = 100 * torch.finfo(expected.dtype).eps if expected.is_floating_point() else 0.0
    sizes = expected.abs()[torch.isfinite(expected)]
    scale = float(sizes.max()) if sizes.numel() else 0.0
    result = result.to(expected)
    if torch.allclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return ""
    differs = ~torch.isclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    position = tuple(torch.nonzero(differs)[0].tolist())
    return f"{result[position]:.4g} where the operator gives {expected[position]:.4g}, at index {position}"
