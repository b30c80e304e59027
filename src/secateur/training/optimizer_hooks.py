"""What all that hooks itself to an optimizer must see to."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from secateur.errors import DataError, OptionError


def check_holds(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> None:
    """Check that an optimizer trains the weights that are to be pruned.

    Args:
        optimizer: the optimizer.
        weights: the parameters, by the names that are shown.

    Raises:
        OptionError: it lacks one of them, as an optimizer does that was made from another copy of the model.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, weight in weights.items() if id(weight) not in trained]
    if missing:
        others = f" and {len(missing) - 1} further weights" if len(missing) > 1 else ""
        raise OptionError(
            f"this {type(optimizer).__name__} does not hold {missing[0]}{others} of this model, so it never trains "
            "what is to be pruned; make it from model.parameters() of the model that is given here, or name layers "
            "that are not trained in skip="
        )


def check_same_model(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Check that an optimizer was made from a model's parameters, from some of them at least.

    Raises:
        OptionError: it holds none of them, so its steps say nothing of this model.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in trained for parameter in model.parameters()):
        raise OptionError(
            f"this {type(optimizer).__name__} holds no parameter of this {type(model).__name__}, so it trains another "
            "model; make it from model.parameters() of the model that is given here"
        )


def attach_optimizer_hooks(
    optimizer: torch.optim.Optimizer, before: Callable[[], None], after: Callable[[], None]
) -> list[RemovableHandle]:
    """Something done before an optimizer moves the weights, when their gradients are there, and something afterwards.

    Where a step is given a closure, as Lightning does, the gradients come into being within the step: `before` is done
    when the closure returns.
    """

    def within(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return before()

        def closed() -> Any:
            loss = closure()
            before()
            return loss

        rest = {name: value for name, value in kwargs.items() if name != "closure"}
        return (args[0], closed, *args[2:]), rest

    return [
        optimizer.register_step_pre_hook(within),
        optimizer.register_step_post_hook(lambda *_: after()),
    ]


def check_finite(gradient: Tensor, step: int, name: str) -> None:
    """
    Raises:
        DataError: a gradient is NaN or infinite; the step and the layer are named.
    """
    if not bool(torch.isfinite(gradient).all()):
        raise DataError(
            f"the gradient at step {step} is NaN or infinite in {name}; lower the learning rate, or scale gradients "
            "with a scaler, which skips such steps"
        )


def is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scaler has told a fused optimizer that gradients overflowed, so that it does nothing in this step."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def scale_of(optimizer: torch.optim.Optimizer) -> float:
    """What the gradients are still to be divided by: fused optimizers are told by a scaler, and do it themselves."""
    return float(getattr(optimizer, "grad_scale", None) or 1)
