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
    axis = program.batch_axis(recorded_operand(consumer))
    share = presence_factors(consumer, present)
    silent = operand_override(consumer, lambda x: without_absent(x, as_factor(share.to(x), x, consumer.dim, axis)))
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

    def filled(x: Tensor) -> Tensor:
        factor, means = (as_factor(values.to(x), x, consumer.dim, axis) for values in (present, absent))
        if not factor.requires_grad:
            x = x.masked_fill(factor == 0, 0)  # an absent unit may be infinite
        return torch.addcmul(means, x, factor)

    return operand_override(consumer, filled)


def presence_factors(consumer: Consumer, present: Tensor) -> Tensor:
    """Return the factor of each unit; attention that takes its scale from the width scales the kept units up."""
    factor = present.double()
    if rule_of(consumer.node).scaled_by_width and arguments(consumer.node).get("scale") is None:
        return factor * (present.shape[1] / factor.sum(1, keepdim=True).clamp_min(1)).sqrt()
    return factor


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
    factor = as_factor(present.to(x), x, consumer.dim, program.batch_axis(recorded_operand(consumer)))
    by_name = {**arguments(consumer.node), **dict(zip(names, args, strict=False)), **kwargs}
    if not factor.requires_grad:
        by_name[consumer.argument] = x.masked_fill(factor == 0, 0)  # an absent unit may be infinite
    return masked(factor, **by_name)
