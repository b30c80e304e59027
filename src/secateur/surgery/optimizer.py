"""The optimizer's state, sliced with its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.residual_blocks import is_inside
from secateur.errors import SurgeryError
from secateur.graph.parametrizations import plain_names
from secateur.surgery.apply_recipe import slice_tensor
from secateur.surgery.recipe import Recipe


@dataclass(frozen=True)
class DenseParameters:
    """The parameters of a dense model.

    Args:
        names: by parameter its name in the plain model, in which computed weights are parameters; several parameters
            from which one weight is computed have its name.
        computed: the names of computed weights.
    """

    names: Mapping[Tensor, str]
    computed: frozenset[str]


def dense_parameters(model: nn.Module, skipped: Sequence[str] = ()) -> DenseParameters:
    """Return the parameters of a model with their names in its plain copy.

    Args:
        model: the model.
        skipped: the paths of blocks that are left out. A parameter that other modules share has a name of theirs.
    """
    names, computed_names = plain_names(model)
    named_parameters = [(parameter, names[name]) for name, parameter in model.named_parameters(remove_duplicate=False)]
    first_names: dict[Tensor, str] = dict(reversed(named_parameters))
    outside = {parameter: name for parameter, name in reversed(named_parameters) if not is_inside(name, skipped)}
    return DenseParameters(first_names | outside, computed_names)


def cut_states(optimizer: torch.optim.Optimizer, dense: DenseParameters, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Slice the state of every parameter that stays one, by name; nothing is changed yet.

    Raises:
        SurgeryError: a state tensor has another shape than its parameter's.
    """
    return {
        name: {
            key: _entry(name, key, value, tuple(parameter.shape), recipe.slices.get(name, {}))
            for key, value in optimizer.state[parameter].items()
        }
        for parameter, name in dense.names.items()
        if parameter in optimizer.state and name not in dense.computed
    }


def replace_parameters(
    optimizer: torch.optim.Optimizer,
    dense: DenseParameters,
    small: nn.Module,
    states: Mapping[str, dict[str, Any]],
    recipe: Recipe,
) -> None:
    """Give an optimizer the small model's parameters and their states, and new biases next to their weights.

    A computed weight takes the place of the first parameter that it was computed from.
    """
    small_parameters = dict(small.named_parameters())
    new = {
        name: small_parameters[recipe.renamed(name)]
        for name in dict.fromkeys(dense.names.values())
        if not is_inside(name, recipe.skipped)
        and (name not in dense.computed or recipe.renamed(name) in small_parameters)  # some are computed from buffers
    }
    other_states = {parameter: state for parameter, state in optimizer.state.items() if parameter not in dense.names}
    biases_of = {name.removesuffix("bias") + "weight": small_parameters[recipe.renamed(name)] for name in recipe.biases}
    remaining_parameters = dict(new)
    for group in optimizer.param_groups:
        group_names = [dense.names.get(parameter) for parameter in group["params"]]
        pairs = zip(group["params"], group_names, strict=True)
        params = [remaining_parameters.pop(name, None) if name is not None else parameter for parameter, name in pairs]
        biases = [biases_of.pop(name) for name in group_names if name is not None and name in biases_of]
        group["params"] = [parameter for parameter in params if parameter is not None] + biases
    optimizer.state.clear()
    optimizer.state.update(other_states)
    optimizer.state.update({new[name]: state for name, state in states.items() if name in new})


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
