"""The optimizer's state, sliced with the parameters it belongs to."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import SurgeryError
from secateur.surgery.recipe import Recipe, sliced


def cut_optimizer(
    optimizer: torch.optim.Optimizer,
    dense: Mapping[str, nn.Parameter],
    shapes: Mapping[str, tuple[int, ...]],
    small: nn.Module,
    recipe: Recipe,
) -> None:
    """Point an optimizer at the small model's parameters and slice its state.

    Args:
        optimizer: it holds the dense model's parameters.
        dense: those parameters by name, and `shapes` what their shapes were.
        small: the small model.
        recipe: how it was cut.

    Raises:
        SurgeryError: a state tensor has another shape than its parameter's; the optimizer is left as it was.
    """
    new = dict(small.named_parameters())
    names: dict[Tensor, str] = {parameter: name for name, parameter in dense.items()}
    state = {}
    for parameter, entries in optimizer.state.items():
        name = names.get(parameter)
        if name is None:
            state[parameter] = entries
            continue
        axes = recipe.slices.get(name, {})
        state[new[name]] = {key: _entry(name, key, value, shapes[name], axes) for key, value in entries.items()}
    biases_of = {name.removesuffix("bias") + "weight": new[name] for name in recipe.biases}
    for group in optimizer.param_groups:
        held = [names.get(parameter) for parameter in group["params"]]
        params = [new[name] if name else parameter for name, parameter in zip(held, group["params"], strict=True)]
        group["params"] = params + [biases_of[name] for name in held if name in biases_of]
    optimizer.state.clear()
    optimizer.state.update(state)


def _entry(name: str, key: str, value: Any, shape: tuple[int, ...], axes: Mapping[int, Tensor]) -> Any:
    """One entry of a parameter's state: sliced along the axes on which it is as long as the parameter."""
    if not isinstance(value, Tensor) or value.dim() == 0 or not axes:
        return value
    if value.dim() != len(shape):
        raise SurgeryError(
            f"the optimizer's state {key!r} of {name} has shape {tuple(value.shape)} beside the parameter's {shape}, "
            "so it can't be sliced with it; make a new optimizer for the cut model"
        )
    return sliced(value, {axis: kept for axis, kept in axes.items() if value.shape[axis] == shape[axis]})
