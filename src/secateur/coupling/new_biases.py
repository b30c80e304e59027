"""Biases that layers without one get for the constants of removed units: which layers may, and which a plan gives one.

Code that knows a layer by its class, and writes its weights elsewhere, drops a bias that it does not expect: an adapter
that is merged, a converter, a format made from a configuration.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from secateur.coupling.network import Network

MERGING = ("merge", "unmerge", "merge_weights", "merge_and_unload", "get_base_layer", "base_layer")


def takes_new_bias(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Whether the layer at a path can get a bias: it is of torch's own class, and no other class wraps it."""
    layer = modules.get(path)
    if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or layer.bias is not None or not _is_torchs(layer):
        return False
    return not any(wraps_layer(modules[holder]) for holder in _holders(path) if holder in modules)


def wraps_layer(module: nn.Module) -> bool:
    """Whether a module of a class other than torch's own stands for a layer that it holds, as adapters do.

    It can merge what it holds, or it holds a linear layer and says the same sizes itself.
    """
    if _is_torchs(module):
        return False
    if any(hasattr(module, name) for name in MERGING) or "lora" in type(module).__name__.lower():
        return True
    children = (child for child in module.children() if isinstance(child, nn.Linear))
    return any(_sizes(child) == _sizes(module) for child in children)


def _sizes(module: nn.Module) -> tuple[Any, Any]:
    return getattr(module, "in_features", None), getattr(module, "out_features", None)


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _holders(path: str) -> list[str]:
    """The paths of the modules that hold a layer, from the inside out."""
    parts = path.split(".")[:-1]
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def without_new_biases(network: Network) -> Network:
    """The network in which no layer gets a new bias: what it reads of removed units counts as zero."""
    consumers = (
        replace(consumer, fold=None) if consumer.fold is not None and consumer.fold.kind == "new" else consumer
        for consumer in network.consumers
    )
    return replace(network, consumers=tuple(consumers))


def grown_biases(network: Network, mask: Tensor) -> dict[str, int]:
    """The biases that mean removal adds where there were none, with their lengths.

    Args:
        network: the network.
        mask: which units stay (units + 1,).
    """
    return {
        consumer.fold.tensor: int(mask[consumer.fold.outputs].sum())
        for consumer in network.new_biases()
        if consumer.fold is not None and not bool(mask[consumer.units].all())
    }
