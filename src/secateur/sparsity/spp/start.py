"""Which layers lose columns, and why the others stay as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.errors import SurgeryError
from secateur.graph.operators import arguments, module_path
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.sparsity.spp.columns import Columns
from secateur.utils.globs import match_globs


def layers_to_prune(model: nn.Module, network: Network, skip: str | Sequence[str] | None) -> list[LinearLayer]:
    """The convolutions whose columns may go.

    Raises:
        NameMatchError: a glob matches none.
        SurgeryError: there is none, or a weight is computed from others.
    """
    candidates = [layer for layer in layers_of(network) if layer.is_convolution and layer.reads]
    names = [layer.name for layer in candidates]
    whole = names[:1] if skip is None else match_globs(skip, names, "convolution")
    chosen = [layer for layer in candidates if layer.name not in whole]
    if not chosen:
        reasons = left_out_text(left_out(network, []))
        raise SurgeryError(f"{network.title} has no convolution whose columns can go{reasons}")
    parameters = dict(model.named_parameters())
    computed = next((layer.weight for layer in chosen if layer.weight not in parameters), None)
    if computed is not None:
        raise SurgeryError(f"{computed} is computed from other parameters; remove the parametrization before training")
    return chosen


def left_out(network: Network, chosen: Sequence[LinearLayer]) -> dict[str, str]:
    """The other convolutions, and why they stay as they are."""
    pruned = {layer.node for layer in chosen}
    layers = {layer.node: layer for layer in layers_of(network)}
    reasons = {}
    for node in network.program.nodes:
        if node in pruned or rule_of(node).layer not in ("convolution", "transposed convolution"):
            continue
        layer, weight = layers.get(node), network.program.state_names.get(arguments(node)["weight"], "")
        name = layer.name if layer is not None else module_path(node) or weight or node.name
        reasons[name] = _reason(node, layer)
    return reasons


def left_out_text(reasons: dict[str, str]) -> str:
    """What was left out, as the end of a message; nothing where nothing was."""
    if not reasons:
        return ""
    return "; left out: " + ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _reason(node: Node, layer: LinearLayer | None) -> str:
    if rule_of(node).layer == "transposed convolution":
        return "it is transposed"
    if layer is None:
        return "its weight is no parameter of its own, or its channels are bound to others in a way that no column is"
    return (
        "it is the first, or among those to skip" if layer.reads else "it is depthwise: it has no input channels to sum"
    )


def columns_of(layer: LinearLayer, weight: Tensor, count: int, groups: str) -> Columns:
    """A layer's columns, none of which is masked yet.

    Args:
        layer: the layer.
        weight: its weight.
        count: how many groups of columns shall go.
        groups: "columns", or "channels" for all places of a kernel together.
    """
    group = group_numbers(layer, groups)
    nothing = torch.zeros(int(group.max()) + 1, dtype=torch.float64)
    return Columns(layer, weight, group, count, nothing, nothing > 0, weight.detach().clone())


def group_numbers(layer: LinearLayer, groups: str) -> Tensor:
    """For each column the number of the group that it goes with. (columns,)"""
    columns = torch.arange(layer.features_of_group)
    return columns if groups == "columns" else columns // layer.kernel
