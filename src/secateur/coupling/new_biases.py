"""New biases, which layers without one get for the constants of removed units.

Code that relies on the class of a layer and writes its weights elsewhere drops a bias that it does not expect: the
merging of an adapter, a converter, a format made from a configuration.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from secateur.coupling.network import Network

MERGING = ("merge", "unmerge", "merge_weights", "merge_and_unload", "get_base_layer", "base_layer")


def takes_new_bias(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Return whether the layer at a path can get a bias: its class is one of torch, and no other class wraps it."""
    layer = modules.get(path)
    if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or layer.bias is not None or not _is_torchs(layer):
        return False
    return not any(wraps_layer(modules[holder]) for holder in _holders(path) if holder in modules)


def wraps_layer(module: nn.Module) -> bool:
    """Return whether a module of a class other than torch's wraps one of its layers, as adapters do.

    It can merge the layer, or it has a linear layer and attributes with the same sizes.
    """
    if _is_torchs(module):
        return False
    if any(hasattr(module, name) for name in MERGING) or "lora" in type(module).__name__.lower():
        return True
    children = (child for child in module.children() if isinstance(child, nn.Linear))
    return any(_layer_sizes(child) == _layer_sizes(module) for child in children)


def _layer_sizes(module: nn.Module) -> tuple[Any, Any]:
    return getattr(module, "in_features", None), getattr(module, "out_features", None)


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _holders(path: str) -> list[str]:
    """Return the paths of the modules that contain a layer, from the inside out."""
    names = path.split(".")[:-1]
    return [".".join(names[:length]) for length in range(len(names), -1, -1)]


def without_new_biases(network: Network) -> Network:
    """Forbid new biases: in layers without a bias the constants of removed units count as zero."""
    consumers = (
        replace(consumer, fold=None) if consumer.fold is not None and consumer.fold.kind == "new" else consumer
        for consumer in network.consumers
    )
    return replace(network, consumers=tuple(consumers))


def grown_biases(network: Network, mask: Tensor) -> dict[str, int]:
    """Return the biases that mean removal adds where there were none, with their lengths.

    Args:
        network: the network.
        mask: which units are kept (units + 1,).
    """
    return {
        consumer.fold.tensor: int(mask[consumer.fold.outputs].sum())
        for consumer in network.new_biases()
        if consumer.fold is not None and not bool(mask[consumer.units].all())
    }
