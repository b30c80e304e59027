"""`cut`: a smaller module of the same class, checked against the masked run."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.coupling.plan import Plan
from secateur.entry import entry_point
from secateur.errors import SurgeryError
from secateur.graph.parametrizations import bake_in_place, bake_parametrizations
from secateur.graph.remembered_state import empty_caches
from secateur.surgery.apply_recipe import apply_recipe, pack_recurrent_weights
from secateur.surgery.cut_copy import cut_copy
from secateur.surgery.lineage import attach_lineage, lineage_of, record_cut
from secateur.surgery.optimizer import cut_states, dense_parameters, replace_parameters
from secateur.surgery.program_surgery import as_module
from secateur.surgery.recipe import Recipe, check_shapes, recipe_of
from secateur.surgery.verify import verify


@entry_point
def cut(
    model: nn.Module,
    plan: Plan,
    *,
    inplace: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    scale_dropout: bool = False,
) -> nn.Module:
    """Cut the units that a plan does not keep.

    The result is verified: on the example that the network was traced with, it computes what the dense network
    computes with those units masked. Where the plan's removal is "mean", each removed unit's mean is folded into the
    biases (or the batch norm) of those who read it.

    Args:
        model: the dense model that was traced.
        plan: what stays.
        inplace: cut `model` itself, to save memory, in place of a copy; its trace is of no use afterwards.
        optimizer: its state is sliced with the parameters, and it is pointed at the small model's parameters. Weights
            that a parametrization computed begin without a state.
        scale_dropout: lower dropout rates by the square root of the fraction of units that stays (Han et al. 2015,
            section 3.2).

    Returns:
        The small model, in the training mode of the dense one; where the network was traced with `as_program=True`, a
        module that runs the cut program.

    Raises:
        SurgeryError: the model is not the one traced, can't be copied, or does not compute what it should once cut;
            it is left as it was.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> plan = sc.plan(network, sc.score(network, by="l1"), keep={"units": 0.5})
        >>> sc.cut(model, plan)
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    source = bake_parametrizations(model)
    _check_unchanged(source, plan.network)
    if plan.network.as_program:
        if inplace:
            raise SurgeryError("a program is cut as a copy: leave inplace=True out, or trace without as_program=True")
        source = as_module(plan.network.program)
    small, recipe = cut_copy(source, plan.network, plan.kept, plan.means)
    verify(small, plan.network, plan.kept, plan.means)
    if scale_dropout:
        recipe = _scale_dropouts(small, recipe)
    record_cut(small, model, plan.network, recipe)
    dense = dense_parameters(model, recipe.skipped)
    states = cut_states(optimizer, dense, recipe) if optimizer is not None else {}
    if inplace:
        bake_in_place(model)
        empty_caches(model, plan.network.program.caches)
        _become(model, small, recipe)
        small = model
    if optimizer is not None:
        replace_parameters(optimizer, dense, small, states, recipe)
    return small


@dataclass(frozen=True, eq=False)
class CutModel:
    """A model that was cut, and how.

    Args:
        model: the small model.
        plan: the units that it keeps.
        recipe: the changes to tensors and attributes that turn the dense model into it.
    """

    model: nn.Module
    plan: Plan
    recipe: Recipe


def cut_with_recipe(model: nn.Module, plan: Plan) -> CutModel:
    """Cut a copy of a model, as `cut` does, and return it with its plan and recipe."""
    return CutModel(cut(model, plan), plan, recipe_of(model, plan))


def _check_unchanged(model: nn.Module, network: Network) -> None:
    """Check that the model's parameters are those that were traced.

    Raises:
        SurgeryError: the model's parameters are not those that were traced.
    """
    check_shapes(model, network)
    parameters = dict(model.named_parameters())
    for name in network.program.state_names.values():
        traced_value = network.program.state(name)
        if (
            name in parameters
            and parameters[name].shape == traced_value.shape
            and not _are_equal_tensors(parameters[name], traced_value)
        ):
            raise SurgeryError(
                f"{name} of this {type(model).__name__} is not what was traced (other values, type or device); trace "
                "the model again, after loading weights or moving it"
            )


def _are_equal_tensors(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))


def _scale_dropouts(small: nn.Module, recipe: Recipe) -> Recipe:
    """Lower the dropout rates of a cut model; return the recipe with these rates."""
    attributes, was = (
        {path: dict(values) for path, values in attributes.items()} for attributes in (recipe.attributes, recipe.was)
    )
    for path, fraction in recipe.dropouts.items():
        module: Any = small.get_submodule(path)
        was.setdefault(path, {})["p"] = module.p
        module.p = module.p * fraction**0.5
        attributes.setdefault(path, {})["p"] = module.p
    return replace(recipe, attributes=attributes, was=was)


def _become(model: nn.Module, small: nn.Module, recipe: Recipe) -> None:
    """Give the model the structure and tensors of the small one; its parameters stay the same objects."""
    apply_recipe(model, recipe)
    small_tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensor.data = small_tensors[name].data
    pack_recurrent_weights(model)
    lineage = lineage_of(small)
    if lineage is not None:
        attach_lineage(model, lineage)
