"""The recipe of a cut: everything that turns the dense model's structure into the small one's, as plain numbers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.cost import WHOLE
from secateur.coupling.network import Kept, Network
from secateur.coupling.new_biases import grown_biases
from secateur.coupling.plan import Plan
from secateur.coupling.residual_blocks import is_inside, removed_blocks
from secateur.errors import SurgeryError
from secateur.graph.module_program import Literals, ModuleProgram
from secateur.graph.parametrizations import bake_parametrizations, needs_folding
from secateur.surgery.config_recipe import changed_numbers, layer_lists_of
from secateur.surgery.program_surgery import as_module, literals_of, module_programs_of
from secateur.surgery.recipe_attributes import (
    Slices,
    norm_sizes,
    own_counts,
    readable_sizes,
    resized_attributes,
    updates_from_trials,
)
from secateur.surgery.replacements import REPLACEMENTS

Value = TypeVar("Value")


@dataclass(frozen=True)
class Recipe:
    """The changes that turn a dense model into a small one of the same class.

    Args:
        kept: original indices of kept units, by group.
        slices: the positions that stay, by tensor and axis.
        attributes: new values, by module path and attribute.
        biases: lengths of biases that are added where there were none, by name.
        dropouts: the fraction of its units that stays before each dropout module, by path.
        literals: new values, by operator, argument and place in it, where the model is an exported program.
        was: the values of those attributes in the dense model.
        skipped: paths of the blocks that are left out.
        folded: whether weights that were computed from others are held as they are first.
        program: whether what is cut is the exported program.
        dropins: paths of modules whose class has a stand-in that can say the cut shape.
        module_programs: the cut programs of modules whose own code can't say the cut shape, by path.
        config: new numbers of the model's configuration, by name.
        layer_lists: for the path of each list from which skipped blocks are removed, the number of the configuration
            that is its length; the blocks behind them move up.
    """

    kept: Mapping[str, Tensor]
    slices: Slices
    attributes: Mapping[str, Mapping[str, Any]]
    biases: Mapping[str, int]
    dropouts: Mapping[str, float]
    literals: Literals
    was: Mapping[str, Mapping[str, Any]]
    dropins: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    folded: bool = False
    program: bool = False
    module_programs: Mapping[str, ModuleProgram] = field(default_factory=dict)
    config: Mapping[str, int] = field(default_factory=dict)
    layer_lists: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, name: str) -> str:
        """Return the name in the small model of a module or tensor of the dense one that is kept."""
        for path in self.layer_lists:
            if name.startswith(f"{path}."):
                index, dot, rest = name[len(path) + 1 :].partition(".")
                new_index = int(index) - sum(other < int(index) for other in self.skipped_in(path))
                return f"{path}.{new_index}{dot}{rest}"
        return name

    def skipped_in(self, path: str) -> list[int]:
        """Return the positions of the skipped blocks in a list of layers."""
        parts_of_paths = [skipped.rpartition(".") for skipped in self.skipped]
        return [int(index) for holder, _, index in parts_of_paths if holder == path]


def make_recipe(model: nn.Module, network: Network, kept: Kept, folds: bool) -> Recipe:
    """Make the recipe for keeping these units.

    Args:
        model: the dense model.
        network: its trace.
        kept: original indices by group; groups that are not named stay whole.
        folds: whether consumers get biases for the constants of removed units.
    """
    mask = network.mask(kept)
    skipped = removed_blocks(network, mask)
    slices = kept_positions(network, mask, skipped)
    modules = dict(model.named_modules())
    attributes = _changed_attributes(modules, network, kept, mask, slices)
    biases = _outside(grown_biases(network, mask) if folds else {}, skipped)
    fractions = {group: len(kept[group.name]) / group.size for group in network.groups if group.name in kept}
    dropouts = _outside({path: fraction for group, fraction in fractions.items() for path in group.dropouts}, skipped)
    changed_attributes = _outside({path: new for path, new in attributes.items() if new}, skipped)
    was = {path: {name: getattr(modules[path], name) for name in new} for path, new in changed_attributes.items()}
    dropins = tuple(path for path in changed_attributes if type(modules[path]) in REPLACEMENTS)
    return Recipe(
        dict(kept),
        slices,
        changed_attributes,
        biases,
        dropouts,
        literals_of(network, mask) if network.as_program else {},
        was,
        dropins,
        skipped,
        module_programs=_outside(module_programs_of(network, mask), skipped),
        config=changed_numbers(network, mask, skipped),
        layer_lists=layer_lists_of(network, skipped),
    )


def _outside(by_path: Mapping[str, Value], skipped: Sequence[str]) -> dict[str, Value]:
    """Return the entries whose path or name lies in none of the skipped blocks."""
    return {path: value for path, value in by_path.items() if not is_inside(path, skipped)}


def _changed_attributes(
    modules: Mapping[str, nn.Module], network: Network, kept: Kept, mask: Tensor, slices: Slices
) -> dict[str, dict[str, Any]]:
    """Return the new values of the attributes that a cut changes, by module."""
    from_trials = {(update.path, update.attribute) for update in network.attribute_updates}
    attributes = defaultdict(dict, resized_attributes(modules, slices))
    for group in network.groups:
        if group.name in kept and len(kept[group.name]) < group.size and network.reshaping[group.name]:
            sizes = readable_sizes(group, mask)
            for path in network.reshaping[group.name]:
                counts = own_counts(modules[path], sizes) if path in modules else {}
                untried_counts = {name: value for name, value in counts.items() if (path, name) not in from_trials}
                attributes[path] = {**attributes[path], **untried_counts}
    for path, changed_attributes in norm_sizes(modules, network, mask).items():
        attributes[path] = {**attributes[path], **changed_attributes}
    for path, changed_attributes in updates_from_trials(modules, network, mask).items():
        attributes[path] = {**attributes[path], **changed_attributes}
    return attributes


def kept_positions(network: Network, mask: Tensor, skipped: Sequence[str]) -> dict[str, dict[int, Tensor]]:
    """Return the kept positions of each axis from which entries are removed, by tensor and axis.

    Args:
        network: the network.
        mask: which units are kept (units + 1,).
        skipped: the paths of removed blocks, whose tensors are left out.
    """
    slices: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    members = [member for member in network.members if member.axis != WHOLE]
    stays = mask[torch.cat([member.units for member in members])].numpy() if members else np.empty(0, bool)
    start = 0
    for member in members:
        kept_entries = stays[start : start + len(member.units)]
        start += len(kept_entries)
        if not kept_entries.all() and kept_entries.any() and not is_inside(member.tensor, skipped):
            slices[member.tensor][member.axis] = torch.from_numpy(np.flatnonzero(kept_entries))
    return dict(slices)


def recipe_of(model: nn.Module, plan: Plan) -> Recipe:
    """Return the recipe that leads from a dense model to the result of `cut` by a plan.

    Raises:
        SurgeryError: the model is not the one that was traced.
    """
    source = as_module(plan.network.program) if plan.network.as_program else bake_parametrizations(model)
    check_shapes(source, plan.network)
    recipe = make_recipe(source, plan.network, plan.kept, folds=bool(plan.means))
    is_program = plan.network.as_program
    return replace(recipe, folded=needs_folding(model) and not is_program, program=is_program)


def check_shapes(model: nn.Module, network: Network) -> None:
    """Check that a model has the shapes of the traced one.

    Raises:
        SurgeryError: a tensor of the model has another shape than in the network that was traced.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    for tensor in network.tensors:
        if shapes.get(tensor.name) != tensor.shape:
            raise SurgeryError(
                f"{tensor.name} has shape {shapes.get(tensor.name)} in this {type(model).__name__}, but {tensor.shape} "
                "in the network that was traced; trace this model, or give the dense one"
            )
