"""Operators that read units of which some are absent: zero, or at their means."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.consumers import Consumer
from secateur.coupling.rules.op_rule import MaskedOp
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.masking.operand_overrides import as_factor, operand_override, without_absent
from secateur.masking.operands import operand, recorded_operand


def zeroing_override(program: Program, consumer: Consumer, present: Tensor, constant: Tensor | None) -> OpOverride:
    """Return the override that zeroes absent units and adds the response to their means."""
    axis, scale = program.batch_axis(recorded_operand(consumer)), width_scales(consumer, present)

    def zero(x: Tensor) -> Tensor:
        kept = without_absent(x, present, consumer.dim, axis)
        return kept if scale is None else kept * as_factor(scale.to(x), x, consumer.dim, axis)

    silent = operand_override(consumer, zero)
    if constant is None:
        return silent

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = silent(target, args, kwargs)
        return result + as_factor(constant.to(result), result, consumer.dim, axis)

    return handler


def mean_override(program: Program, consumer: Consumer, present: Tensor, mean: Tensor) -> OpOverride:
    """Return the override that replaces absent units by their means; for linear layers, which pad nothing."""
    axis = program.batch_axis(recorded_operand(consumer))
    mean = mean.to(present.device)
    absent = (1 - present.to(mean)) * mean

    def fill(x: Tensor) -> Tensor:
        means = as_factor(absent.to(x), x, consumer.dim, axis)
        if present.dtype == torch.bool:  # absent units may be infinite
            return torch.where(as_factor(present.to(x.device), x, consumer.dim, axis), x, means)
        return torch.addcmul(means, x, as_factor(present.to(x), x, consumer.dim, axis))

    return operand_override(consumer, fill)


def width_scales(consumer: Consumer, present: Tensor) -> Tensor | None:
    """Return by how much attention scales kept units up that takes its scale from the width; None for other operators.

    Args:
        consumer: the consumer.
        present: which units stay (coalitions, size).

    Returns:
        (coalitions, size).
    """
    if not rule_of(consumer.node).scaled_by_width or arguments(consumer.node).get("scale") is not None:
        return None
    kept = present.double().sum(1, keepdim=True).clamp_min(1)
    return (present.shape[1] / kept).sqrt().expand(present.shape)


def masked_operator(
    masked: MaskedOp,
    program: Program,
    consumer: Consumer,
    present: Tensor,
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run an operator with some of its units absent, by the masked form of its rule."""
    x = operand(consumer, args, kwargs)
    names = [argument.name for argument in consumer.node.target._schema.arguments]  # type: ignore[union-attr]
    by_name = {**arguments(consumer.node), **dict(zip(names, args, strict=False)), **kwargs}
    axis = program.batch_axis(recorded_operand(consumer))
    if present.dtype == torch.bool:
        by_name[consumer.argument] = without_absent(x, present, consumer.dim, axis)
    return masked(as_factor(present.to(x), x, consumer.dim, axis), **by_name)
