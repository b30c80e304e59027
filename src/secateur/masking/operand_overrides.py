"""Overrides that change what an operator reads, and chains of overrides."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.consumers import Consumer
from secateur.graph.operators import with_argument
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.operands import operand


def chain_overrides(handlers: Sequence[OpOverride]) -> OpOverride:
    """Compose several overrides of one operator, each of another argument; the last one is called first."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = target
        for override in handlers:
            call = partial(lambda inner, h, *a, **k: h(inner, a, k), call, override)
        return call(*args, **kwargs)

    return handler if len(handlers) > 1 else handlers[0]


def as_factor(values: Tensor, x: Tensor, dim: int, batch_axis: int | None) -> Tensor:
    """Reshape values (coalitions, size) to a factor of x, whose batch holds its examples for each coalition in turn."""
    view = [1] * x.dim()
    view[dim] = values.shape[1]
    if values.shape[0] == 1:
        return values.view(view)
    assert batch_axis is not None and batch_axis != dim
    view[batch_axis] = x.shape[batch_axis]
    repeated_values = values.repeat_interleave(x.shape[batch_axis] // values.shape[0], 0)  # (examples stacked, size)
    return (repeated_values if batch_axis < dim else repeated_values.t()).reshape(view)


def without_absent(x: Tensor, present: Tensor, dim: int, batch_axis: int | None) -> Tensor:
    """Replace absent units by 0, also infinite ones, which a product with 0 would turn into NaN.

    Args:
        x: the values.
        present: which units stay (coalitions, size): booleans, or gates that are multiplied for their gradients.
        dim: the units' axis.
        batch_axis: the axis of the examples, see `as_factor`.
    """
    if present.dtype == torch.bool:
        return x.masked_fill(as_factor(~present.to(x.device), x, dim, batch_axis), 0)
    return x * as_factor(present.to(x), x, dim, batch_axis)


def operand_override(consumer: Consumer, change: Callable[[Tensor], Tensor]) -> OpOverride:
    """Return the override of a consumer's operator that changes its operand."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = change(operand(consumer, args, kwargs))
        args, kwargs = with_argument(consumer.node, args, kwargs, consumer.argument, x)
        return target(*args, **kwargs)

    return handler
