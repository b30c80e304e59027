"""Apply a recipe to a dense model: slice tensors, set attributes, create biases."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.parametrizations import bake_in_place
from secateur.surgery.model_config import configure, number_layers
from secateur.surgery.program_modules import run_as_program
from secateur.surgery.program_surgery import apply_literals
from secateur.surgery.recipe import Recipe
from secateur.surgery.replacements import replace_class, skipped_block
from secateur.utils.mapped_tensors import TensorRoom


def apply_recipe(model: nn.Module, recipe: Recipe, room: TensorRoom | None = None) -> None:
    """Give a dense model the recipe's structure, in place: sliced tensors, new attributes, empty new biases.

    Args:
        model: the dense model.
        recipe: the recipe.
        room: the room for sliced tensors, of which others are in temporary files; None for all that they take.
    """
    if recipe.folded:
        bake_in_place(model)
    for path in recipe.skipped:
        model.set_submodule(path, skipped_block(model, path))
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))  # looked up for each tensor
    for name, axes in recipe.slices.items():
        path, _, attribute = name.rpartition(".")
        tensor: Tensor = getattr(modules[path], attribute)
        gradient = tensor.grad
        sliced_tensor = slice_tensor(tensor.data, axes)
        tensor.data = sliced_tensor if room is None else room.fit(sliced_tensor)
        if gradient is not None:
            tensor.grad = slice_tensor(gradient, axes)
    for path in recipe.dropins:
        replace_class(model.get_submodule(path))
    for path, program in recipe.module_programs.items():
        run_as_program(model.get_submodule(path), program)
    for path, attributes in recipe.attributes.items():
        module = model.get_submodule(path)
        for attribute, value in attributes.items():
            setattr(module, attribute, list(value) if isinstance(getattr(module, attribute, None), list) else value)
    apply_literals(model, recipe.literals)
    for name, length in recipe.biases.items():
        _add_bias_parameter(model, name, length)
    _drop_layers(model, recipe)


def pack_recurrent_weights(model: nn.Module) -> None:
    """Give recurrent layers on an accelerator one block of memory again, as cuDNN reads it; slices are lost from it."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def _add_bias_parameter(model: nn.Module, name: str, length: int) -> None:
    """Give a layer a bias of zeros."""
    path, _, attribute = name.rpartition(".")
    layer = model.get_submodule(path)
    weight = layer.get_parameter("weight")
    bias = nn.Parameter(torch.zeros(length, dtype=weight.dtype, device=weight.device), weight.requires_grad)
    layer.register_parameter(attribute, bias)


def _drop_layers(model: nn.Module, recipe: Recipe) -> None:
    """Shorten the lists of layers, and give the model a configuration with the new numbers."""
    lists = recipe.layer_lists.items()
    kept = {field: _shorten(model.get_submodule(path), recipe.skipped_in(path)) for path, field in lists}
    configure(model, recipe.config, kept)


def _shorten(layers: nn.Module, skipped: Sequence[int]) -> list[int]:
    """Remove layers from a list, number the others anew, and return the old positions of those that are kept."""
    kept = [index for index in range(len(layers._modules)) if index not in skipped]
    remaining = {str(new): layers._modules[str(old)] for new, old in enumerate(kept)}
    layers._modules.clear()
    layers._modules.update(remaining)
    number_layers(layers)
    return kept


LARGE = 2**16


def slice_tensor(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """Slice a tensor along several axes; keep its memory format.

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
    """Slice a contiguous tensor along outputs and inputs, copying runs of consecutive inputs."""
    length = _run_length(inputs, tensor.shape[1])
    runs = tensor.unflatten(1, (-1, length))
    chosen_runs: Tensor = runs[outputs[:, None], inputs[::length] // length]
    return chosen_runs.flatten(1, 2).contiguous()


def _run_length(positions: Tensor, length: int) -> int:
    """Return the length of the longest runs, beginning at its multiples, of ascending positions of an axis.

    Where an image is flattened before a linear layer, each channel has a run of inputs.
    """
    jumps = torch.nonzero(positions.diff() != 1).flatten()
    ends = torch.cat([positions[jumps] + 1, positions[jumps + 1], positions[:1], positions[-1:] + 1])
    numbers: list[int] = ends.tolist()
    return math.gcd(length, *numbers)
