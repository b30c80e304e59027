"""Hooks on optimizers, and the checks of optimizers and gradients that go with them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from secateur.errors import DataError, OptionError
from secateur.utils.plurals import number_of


def check_holds(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> None:
    """Check that an optimizer trains the weights that are to be pruned.

    Args:
        optimizer: the optimizer.
        weights: the parameters, by the names that are shown.

    Raises:
        OptionError: It lacks one of them, as an optimizer does that was made from another copy of the model.
    """
    missing = [name for name, weight in weights.items() if not _holds_any(optimizer, [weight])]
    if missing:
        rest_text = f" and {number_of(len(missing) - 1, 'further weight')}" if len(missing) > 1 else ""
        raise OptionError(
            f"this {type(optimizer).__name__} does not hold {missing[0]}{rest_text} of this model, so it never trains "
            "what is to be pruned; make it from model.parameters() of the model that is given here, or name layers "
            "that are not trained in skip="
        )


def check_same_model(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Check that an optimizer was made from a model's parameters, or from some of them.

    Raises:
        OptionError: It holds none of them, so it trains another model.
    """
    if not _holds_any(optimizer, model.parameters()):
        raise OptionError(
            f"this {type(optimizer).__name__} holds no parameter of this {type(model).__name__}, so it trains another "
            "model; make it from model.parameters() of the model that is given here"
        )


def attach_optimizer_hooks(
    optimizer: torch.optim.Optimizer, before: Callable[[], None], after: Callable[[], None]
) -> list[RemovableHandle]:
    """Call a function before an optimizer moves the weights, when their gradients are computed, and another afterwards.

    Where a step is given a closure, as Lightning does, the gradients are computed within the step: `before` is called
    when the closure returns.
    """

    def run_before(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return before()

        def closure_then_before() -> Any:
            loss = closure()
            before()
            return loss

        options = {name: value for name, value in kwargs.items() if name != "closure"}
        return (args[0], closure_then_before, *args[2:]), options

    return [
        optimizer.register_step_pre_hook(run_before),
        optimizer.register_step_post_hook(lambda *_: after()),
    ]


def check_finite(gradient: Tensor, step: int, name: str) -> None:
    """Check that a gradient is finite.

    Args:
        gradient: the gradient.
        step: the number of the step, for the message.
        name: the layer, for the message.

    Raises:
        DataError: It holds NaN or infinite values.
    """
    if not bool(torch.isfinite(gradient).all()):
        raise DataError(
            f"the gradient at step {step} is NaN or infinite in {name}; lower the learning rate, or scale gradients "
            "with a scaler, which skips such steps"
        )


def is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a fused optimizer skips this step, because a gradient scaler has met an overflow."""
    overflow = getattr(optimizer, "found_inf", None)
    return overflow is not None and bool(overflow)


def scale_of(optimizer: torch.optim.Optimizer) -> float:
    """Return the factor by which gradients are still scaled, in fused optimizers, which unscale them in their step."""
    return float(getattr(optimizer, "grad_scale", None) or 1)


def _holds_any(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> bool:
    trained_ids = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return any(id(parameter) in trained_ids for parameter in parameters)
