"""The optimizer's state, sliced with its parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.residual_blocks import is_inside
from secateur.errors import SurgeryError
from secateur.surgery.apply_recipe import slice_tensor
from secateur.surgery.recipe import Recipe


def cut_states(
    optimizer: torch.optim.Optimizer, dense: Mapping[str, nn.Parameter], recipe: Recipe
) -> dict[str, dict[str, Any]]:
    """Slice the state of every parameter, by name; nothing is changed yet.

    Raises:
        SurgeryError: a state tensor has another shape than its parameter's.
    """
    return {
        name: {
            key: _entry(name, key, value, tuple(parameter.shape), recipe.slices.get(name, {}))
            for key, value in optimizer.state[parameter].items()
        }
        for name, parameter in dense.items()
        if parameter in optimizer.state
    }


def replace_parameters(
    optimizer: torch.optim.Optimizer,
    dense: Mapping[str, nn.Parameter],
    small: nn.Module,
    states: Mapping[str, dict[str, Any]],
    recipe: Recipe,
) -> None:
    """Give an optimizer the small model's parameters and their states, and new biases next to their weights."""
    small_parameters = dict(small.named_parameters())
    new = {name: small_parameters[recipe.renamed(name)] for name in dense if not is_inside(name, recipe.skipped)}
    names: dict[Tensor, str] = {parameter: name for name, parameter in dense.items()}
    others = {parameter: state for parameter, state in optimizer.state.items() if parameter not in names}
    biases_of = {name.removesuffix("bias") + "weight": small_parameters[recipe.renamed(name)] for name in recipe.biases}
    for group in optimizer.param_groups:
        kept = [p for p in group["params"] if p not in names or names[p] in new]  # not those of skipped blocks
        group_names = [names.get(parameter) for parameter in kept]
        params = [new[name] if name else parameter for name, parameter in zip(group_names, kept, strict=True)]
        group["params"] = params + [biases_of[name] for name in group_names if name in biases_of]
    optimizer.state.clear()
    optimizer.state.update(others)
    for name, state in states.items():
        if name in new:
            optimizer.state[new[name]] = state


def _entry(name: str, key: str, value: Any, shape: tuple[int, ...], axes: Mapping[int, Tensor]) -> Any:
    """Slice one entry of a parameter's state along the axes on which it is as long as the parameter."""
    if not isinstance(value, Tensor) or value.dim() == 0 or not axes:
        return value
    if value.dim() != len(shape):
        raise SurgeryError(
            f"the optimizer's state {key!r} of {name} has shape {tuple(value.shape)} beside the parameter's {shape}, "
            "so it can't be sliced with it; make a new optimizer for the cut model"
        )
    return slice_tensor(value, {axis: kept for axis, kept in axes.items() if value.shape[axis] == shape[axis]})
