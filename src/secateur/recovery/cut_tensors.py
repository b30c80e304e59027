"""The tensors of a cut model, by their names in the dense one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.coupling.residual_blocks import is_inside
from secateur.surgery.recipe import Recipe


def cut_tensor_names(network: Network, recipe: Recipe) -> dict[str, str]:
    """Return the names of tensors in a cut model, by their names in the dense one; without those of skipped blocks."""
    biases = (consumer.fold.tensor for consumer in network.new_biases() if consumer.fold is not None)
    names = {*network.program.state_names.values(), *biases}
    return {name: recipe.renamed(name) for name in names if not is_inside(name, recipe.skipped)}


def renamed_tensors(small: nn.Module, cut_names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors of a cut model by their names in the dense one."""
    tensors = tensors_by_name(small)
    return {name: tensors[cut_name] for name, cut_name in cut_names.items() if cut_name in tensors}


def tensors_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model by name, under each name that a tensor has."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def share_memory(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor the memory of a value if both have the same layout, or else a copy of the value.

    Args:
        tensor: the parameter or buffer, whose previous memory is not written to.
        value: of the same shape.
    """
    target = tensor.data
    if value.data_ptr() == target.data_ptr():
        return
    is_alike = _memory_layout(value) == _memory_layout(target)
    tensor.data = value.as_strided(target.shape, target.stride()) if is_alike else torch.empty_like(target).copy_(value)


def _memory_layout(tensor: Tensor) -> tuple[list[int], torch.dtype, torch.device]:
    """Return the strides of the axes along which there is more than one entry, the type and the device."""
    strides = [stride for stride, length in zip(tensor.stride(), tensor.shape, strict=True) if length > 1]
    return strides, tensor.dtype, tensor.device
