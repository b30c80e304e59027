"""Which layers lose how many of their columns."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.errors import BudgetError, SurgeryError
from secateur.names import matched
from secateur.network.labels import operator_name
from secateur.network.layers import CONVOLUTIONS, Layer, layers_of
from secateur.network.program import arguments, module_path
from secateur.network.trace import results_of
from secateur.network.units import Network
from secateur.sparsity.spp.columns import Columns


def layers_to_prune(model: nn.Module, network: Network, skip: str | Sequence[str] | None) -> list[Layer]:
    """The convolutions whose columns may go.

    Raises:
        NameMatchError: a glob matches none.
        SurgeryError: there is none, or a weight is computed from others.
    """
    found = [layer for layer in layers_of(network) if layer.is_convolution and layer.groups == 1]
    names = [layer.name for layer in found]
    whole = names[:1] if skip is None else matched(skip, names, "convolution")
    chosen = [layer for layer in found if layer.name not in whole]
    if not chosen:
        raise SurgeryError(f"{network.title} has no convolution whose columns can go: {', '.join(names) or 'none'}")
    held = dict(model.named_parameters())
    computed = next((layer.weight for layer in chosen if layer.weight not in held), None)
    if computed is not None:
        raise SurgeryError(f"{computed} is computed from other parameters; remove the parametrization before training")
    return chosen


TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def left_out(network: Network, chosen: Sequence[Layer]) -> dict[str, str]:
    """The other convolutions, and why they stay as they are."""
    pruned = {layer.node for layer in chosen}
    own = {layer.node: layer for layer in layers_of(network)}
    found = {}
    for node in network.program.nodes:
        if node in pruned or node.op != "call_function" or operator_name(node) not in (*CONVOLUTIONS, *TRANSPOSED):
            continue
        layer, weight = own.get(node), network.program.state_names.get(arguments(node)["weight"], "")
        name = layer.name if layer is not None else module_path(node) or weight or node.name
        found[name] = _reason(node, layer)
    return found


def _reason(node: Node, layer: Layer | None) -> str:
    if operator_name(node) in TRANSPOSED:
        return "it is transposed"
    if layer is None:
        return "its weight is no parameter of its own, or its channels are bound to others in a way that no column is"
    return "its channels are in groups" if layer.groups > 1 else "it is the first, or among those to skip"


def ratios_of(
    network: Network, layers: Sequence[Layer], keep: Mapping[str, float] | None, ratios: Mapping[str, float] | None
) -> dict[str, float]:
    """The fraction of columns to prune, by layer.

    Raises:
        BudgetError: neither a budget nor ratios are given, or they are out of range.
        NameMatchError: a glob matches no layer.
    """
    if keep is None and not ratios:
        raise BudgetError("neither keep= nor ratios= is given; say how much stays, such as keep={'macs': 0.5}")
    share = _common_ratio(network, layers, keep)
    layers_named = [layer.name for layer in layers]
    found = dict.fromkeys(layers_named, share)
    for glob, ratio in (ratios or {}).items():
        if not 0 <= ratio < 1:
            raise BudgetError(f"ratios={{{glob!r}: {ratio}}}: give the fraction of columns to prune, below 1")
        found |= dict.fromkeys(matched(glob, layers_named, "convolution to prune"), float(ratio))
    return found


def _common_ratio(network: Network, layers: Sequence[Layer], keep: Mapping[str, float] | None) -> float:
    if keep is None:
        return 0.0
    if len(keep) != 1 or not set(keep) <= {"macs", "columns"} or not all(0 < value <= 1 for value in keep.values()):
        raise BudgetError(f"keep={dict(keep)!r}: give {{'macs': 0.5}} or {{'columns': 0.5}}")
    ((unit, value),) = keep.items()
    if unit == "columns":
        return 1 - value
    macs = results_of(network.program, network.example).macs
    own, total = sum(macs[layer.node] for layer in layers), sum(macs.values())
    ratio = (1 - value) * total / max(own, 1)
    if ratio >= 1:
        raise BudgetError(f"keep={{'macs': {value}}} can't be met: without all columns {1 - own / total:.3f} is left")
    return ratio


def columns_of(layer: Layer, weight: Tensor, ratio: float, groups: str) -> Columns:
    features = layer.features_of_group
    group = torch.arange(features) if groups == "columns" else torch.arange(features) // layer.kernel
    number = int(group.max()) + 1
    count = min(math.ceil(ratio * number - 1e-9), number - 1)
    nothing = torch.zeros(number, dtype=torch.float64)
    return Columns(layer, weight, group, count, nothing, nothing > 0, weight.detach().clone())
