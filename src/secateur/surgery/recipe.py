"""A recipe: everything that makes the small network's structure out of the dense one's, as plain numbers."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.cost import WHOLE
from secateur.coupling.network import Group, Kept, Network
from secateur.coupling.new_biases import grown_biases
from secateur.coupling.plan import Plan
from secateur.coupling.residual_blocks import is_inside
from secateur.errors import SurgeryError
from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.module_program import Literals, ModuleProgram
from secateur.graph.operators import module_path, operator_name
from secateur.graph.parametrizations import bake_in_place, bake_parametrizations, needs_folding
from secateur.surgery.module_attributes import COUNTS, OTHER_WIDTHS, WIDTHS, updated_attributes
from secateur.surgery.program_modules import run_as_program
from secateur.surgery.program_surgery import apply_literals, as_module, literals_of, module_programs_of
from secateur.surgery.replacements import REPLACEMENTS, SkippedBlock, replace_class

Slices = Mapping[str, Mapping[int, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How a dense model becomes a small one of the same class.

    Args:
        kept: original indices of the units that stay, by group.
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


def make_recipe(model: nn.Module, network: Network, kept: Kept, folds: bool) -> Recipe:
    """The recipe for keeping these units.

    Args:
        model: the dense model.
        network: its trace.
        kept: original indices by group; groups that are not named stay whole.
        folds: whether readers get biases for the constants of removed units.
    """
    mask = network.mask(kept)
    skipped = tuple(
        path
        for group in network.groups
        if group.places
        for path, stays in zip(group.places, mask[group.span].tolist(), strict=False)
        if not stays
    )
    slices = _slices(network, mask, skipped)
    modules = dict(model.named_modules())
    tried = {(mend.path, mend.attribute) for mend in network.mends}
    attributes = defaultdict(dict, module_attributes(modules, slices))
    for group in network.groups:
        if group.name in kept and len(kept[group.name]) < group.size and network.reshaping[group.name]:
            sizes = _read_sizes(group, mask)
            for path in network.reshaping[group.name]:
                own = _own_attributes(modules[path], sizes) if path in modules else {}
                untried = {name: value for name, value in own.items() if (path, name) not in tried}
                attributes[path] = {**attributes[path], **untried}
    for path, changed in _plain_norms(modules, network, mask).items():
        attributes[path] = {**attributes[path], **changed}
    for path, mended_values in _tried(modules, network, mask).items():
        attributes[path] = {**attributes[path], **mended_values}
    biases = {
        name: length
        for name, length in (grown_biases(network, mask) if folds else {}).items()
        if not is_inside(name, skipped)
    }
    dropouts = {
        path: len(kept[group.name]) / group.size
        for group in network.groups
        for path in group.dropouts
        if group.name in kept and not is_inside(path, skipped)
    }
    literals = literals_of(network, mask) if network.as_program else {}
    changed_attributes = {path: new for path, new in attributes.items() if new and not is_inside(path, skipped)}
    was = {path: {name: getattr(modules[path], name) for name in new} for path, new in changed_attributes.items()}
    dropins = tuple(path for path in changed_attributes if type(modules[path]) in REPLACEMENTS)
    return Recipe(
        dict(kept),
        slices,
        changed_attributes,
        biases,
        dropouts,
        literals,
        was,
        dropins,
        skipped,
        module_programs={
            path: program for path, program in module_programs_of(network, mask).items() if not is_inside(path, skipped)
        },
    )


def _slices(network: Network, mask: Tensor, skipped: Sequence[str]) -> dict[str, dict[int, Tensor]]:
    """The positions that stay of each member of which a part goes, by tensor and axis."""
    slices: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    members = [member for member in network.members if member.axis != WHOLE]
    stays = mask[torch.cat([member.units for member in members])].numpy() if members else np.empty(0, bool)
    start = 0
    for member in members:
        own = stays[start : start + len(member.units)]
        start += len(own)
        if not own.all() and own.any() and not is_inside(member.tensor, skipped):
            slices[member.tensor][member.axis] = torch.from_numpy(np.flatnonzero(own))
    return dict(slices)


def recipe_of(model: nn.Module, plan: Plan) -> Recipe:
    """The recipe that leads from a dense model, as a person has it, to what `cut` makes of it by a plan.

    Raises:
        SurgeryError: the model is not the one that was traced.
    """
    source = as_module(plan.network.program) if plan.network.as_program else bake_parametrizations(model)
    check_shapes(source, plan.network)
    recipe = make_recipe(source, plan.network, plan.kept, folds=bool(plan.means))
    is_program = plan.network.as_program
    return replace(recipe, folded=needs_folding(model) and not is_program, program=is_program)


def check_shapes(model: nn.Module, network: Network) -> None:
    """
    Raises:
        SurgeryError: a tensor of the model has another shape than in the network that was traced.
    """
    own = {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    for tensor in network.tensors:
        if own.get(tensor.name) != tensor.shape:
            raise SurgeryError(
                f"{tensor.name} has shape {own.get(tensor.name)} in this {type(model).__name__}, but {tensor.shape} in "
                "the network that was traced; trace this model, or give the dense one"
            )


def _new_shape(tensor: Tensor, slices: Mapping[int, Tensor]) -> tuple[int, ...]:
    return tuple(len(slices[axis]) if axis in slices else length for axis, length in enumerate(tensor.shape))


def module_attributes(modules: Mapping[str, nn.Module], slices: Slices) -> dict[str, dict[str, Any]]:
    found = {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in slices):
        module, prefix = modules[path], f"{path}." if path else ""
        tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        shapes = {name: _new_shape(tensor, slices.get(prefix + name, {})) for name, tensor in tensors.items()}
        found[path] = updated_attributes(module, shapes)
    return found


def _read_sizes(group: Group, mask: Tensor) -> dict[str, dict[int, int]]:
    """What a module's own code may read of a group's size: new numbers by old ones, by attribute."""
    left = int(mask[group.span].sum())
    widths = {
        len(member.units): int(mask[member.units].sum()) for member in group.members if bool((member.units >= 0).all())
    }
    sizes = {attribute: {group.size: left} for attribute in COUNTS.get(group.kind, ())}
    return sizes | dict.fromkeys(WIDTHS.get(group.kind, OTHER_WIDTHS), widths)


def _own_attributes(module: nn.Module, sizes: Mapping[str, Mapping[int, int]]) -> dict[str, int]:
    """Counts and widths among a module's attributes that equal an old size."""
    return {
        attribute: new[value]
        for attribute, new in sizes.items()
        if type(value := getattr(module, attribute, None)) is int and value in new
    }


def _tried(modules: Mapping[str, nn.Module], network: Network, mask: Tensor) -> dict[str, dict[str, Any]]:
    """The attributes that trial cuts showed to count units."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for mend in network.mends:
        left = int(mask[mend.units].sum())
        if mend.path not in modules or left == len(mend.units):
            continue
        old = found[mend.path].get(mend.attribute, getattr(modules[mend.path], mend.attribute))
        if mend.position is not None:
            parts = list(old)
            parts[mend.position] = left
            found[mend.path][mend.attribute] = type(old)(parts)
        else:
            found[mend.path][mend.attribute] = left
    return found


def _plain_norms(modules: Mapping[str, nn.Module], network: Network, mask: Tensor) -> dict[str, dict[str, Any]]:
    """Sizes of normalisations that have no parameters to read them from."""
    found: dict[str, dict[str, Any]] = {}
    for consumer in network.consumers:
        path = module_path(consumer.node)
        module = modules.get(path)
        if not isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
            continue
        left = int(mask[consumer.units].sum())
        if left == len(consumer.units):
            continue
        if (
            operator_name(consumer.node) in ("layer_norm", "rms_norm")
            and isinstance(module, nn.LayerNorm | nn.RMSNorm)
            and module.weight is None
        ):
            shape = list(module.normalized_shape)
            shape[consumer.dim - (_rank(consumer.node) - len(shape))] = left
            found[path] = {"normalized_shape": tuple(shape)}
        if operator_name(consumer.node) == "group_norm" and isinstance(module, nn.GroupNorm) and module.weight is None:
            found[path] = {"num_channels": left}
    return found


def _rank(node: torch.fx.Node) -> int:
    return len(node.meta["val"].shape)


def apply_recipe(model: nn.Module, recipe: Recipe) -> None:
    """Give a dense model the recipe's structure, in place: sliced tensors, mended attributes, empty new biases."""
    if recipe.folded:
        bake_in_place(model)
    for path in recipe.skipped:
        model.set_submodule(path, SkippedBlock())
    for name, axes in recipe.slices.items():
        path, _, attribute = name.rpartition(".")
        tensor: Tensor = getattr(model.get_submodule(path), attribute)
        gradient = tensor.grad
        tensor.data = sliced(tensor.data, axes)
        if gradient is not None:
            tensor.grad = sliced(gradient, axes)
    for path in recipe.dropins:
        replace_class(model.get_submodule(path))
    for path, program in recipe.module_programs.items():
        run_as_program(model.get_submodule(path), program)
    for path, changed in recipe.attributes.items():
        module = model.get_submodule(path)
        for attribute, value in changed.items():
            setattr(module, attribute, list(value) if isinstance(getattr(module, attribute, None), list) else value)
    apply_literals(model, recipe.literals)
    for name, length in recipe.biases.items():
        path, _, attribute = name.rpartition(".")
        layer = model.get_submodule(path)
        weight = layer.get_parameter("weight")
        bias = nn.Parameter(torch.zeros(length, dtype=weight.dtype, device=weight.device), weight.requires_grad)
        layer.register_parameter(attribute, bias)


LARGE = 2**16


def sliced(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """The tensor with only these positions along these axes, in the layout that it has.

    Large weights lose outputs and inputs in one pass: a copy between takes longer than all the rest of a trial cut.
    """
    if is_channels_last(tensor):
        return as_channels_last(_sliced_by_axis(tensor, axes))
    if axes.keys() == {0, 1} and tensor.numel() > LARGE and tensor.is_contiguous():
        return _sliced_at_once(tensor, axes[0].to(tensor.device), axes[1].to(tensor.device))
    return _sliced_by_axis(tensor, axes)


def _sliced_by_axis(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    for axis, positions in axes.items():
        tensor = tensor.index_select(axis, positions.to(tensor.device))
    return tensor


def _sliced_at_once(tensor: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """A contiguous tensor with only these outputs and inputs, which are copied in runs as long as all inputs lie in."""
    length = _run_length(inputs, tensor.shape[1])
    runs = tensor.unflatten(1, (-1, length))
    chosen: Tensor = runs[outputs[:, None], inputs[::length] // length]
    return chosen.flatten(1, 2).contiguous()


def _run_length(positions: Tensor, length: int) -> int:
    """The length of the longest runs, beginning at its multiples, that ascending positions of an axis consist of.

    Where an image is flattened before a linear layer, each channel has a run of inputs.
    """
    jumps = torch.nonzero(positions.diff() != 1).flatten()
    ends = torch.cat([positions[jumps] + 1, positions[jumps + 1], positions[:1], positions[-1:] + 1])
    numbers: list[int] = ends.tolist()
    return math.gcd(length, *numbers)
