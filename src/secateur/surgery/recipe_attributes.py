"""The attributes of modules that a cut changes."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import module_path, recorded_shape
from secateur.surgery.module_attributes import COUNTS, OTHER_WIDTHS, WIDTHS, updated_attributes

Slices = Mapping[str, Mapping[int, Tensor]]


def resized_attributes(modules: Mapping[str, nn.Module], slices: Slices) -> dict[str, dict[str, Any]]:
    """Return the attributes that the new shapes of tensors change, by module."""
    attributes = {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in slices):
        module, prefix = modules[path], f"{path}." if path else ""
        tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        shapes = {name: new_shape(tensor, slices.get(prefix + name, {})) for name, tensor in tensors.items()}
        attributes[path] = updated_attributes(module, shapes)
    return attributes


def readable_sizes(group: Group, mask: Tensor) -> dict[str, dict[int, int]]:
    """Map old to new numbers of a group's size that a module's code may read, by attribute."""
    remaining = int(mask[group.span].sum())
    widths = {
        len(member.units): int(mask[member.units].sum()) for member in group.members if bool((member.units >= 0).all())
    }
    sizes = {attribute: {group.size: remaining} for attribute in COUNTS.get(group.kind, ())}
    return sizes | dict.fromkeys(WIDTHS.get(group.kind, OTHER_WIDTHS), widths)


def own_counts(module: nn.Module, sizes: Mapping[str, Mapping[int, int]]) -> dict[str, int]:
    """Return counts and widths among a module's attributes that equal an old size."""
    return {
        attribute: new[value]
        for attribute, new in sizes.items()
        if type(value := getattr(module, attribute, None)) is int and value in new
    }


def updates_from_trials(modules: Mapping[str, nn.Module], network: Network, mask: Tensor) -> dict[str, dict[str, Any]]:
    """Return the attributes that, as trial cuts showed, count units."""
    attributes: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for update in network.attribute_updates:
        remaining = int(mask[update.units].sum())
        if update.path not in modules or remaining == len(update.units):
            continue
        old = attributes[update.path].get(update.attribute, getattr(modules[update.path], update.attribute))
        if update.position is not None:
            entries = list(old)
            entries[update.position] = remaining
            attributes[update.path][update.attribute] = type(old)(entries)
        else:
            attributes[update.path][update.attribute] = remaining
    return attributes


def norm_sizes(modules: Mapping[str, nn.Module], network: Network, mask: Tensor) -> dict[str, dict[str, Any]]:
    """Return the sizes of normalisations without parameters."""
    attributes: dict[str, dict[str, Any]] = {}
    for consumer in network.consumers:
        path = module_path(consumer.node)
        module = modules.get(path)
        if not isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
            continue
        remaining = int(mask[consumer.units].sum())
        if remaining == len(consumer.units):
            continue
        if (
            rule_of(consumer.node).norm == "layer"
            and isinstance(module, nn.LayerNorm | nn.RMSNorm)
            and module.weight is None
        ):
            shape = list(module.normalized_shape)
            shape[consumer.dim - (len(recorded_shape(consumer.node)) - len(shape))] = remaining
            attributes[path] = {"normalized_shape": tuple(shape)}
        if rule_of(consumer.node).norm == "group" and isinstance(module, nn.GroupNorm) and module.weight is None:
            attributes[path] = {"num_channels": remaining}
    return attributes


def new_shape(tensor: Tensor, slices: Mapping[int, Tensor]) -> tuple[int, ...]:
    """Return the shape of a tensor after slicing."""
    return tuple(len(slices[axis]) if axis in slices else length for axis, length in enumerate(tensor.shape))
