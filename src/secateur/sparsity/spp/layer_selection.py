"""Selection of the convolutions whose columns are pruned, and the reasons why the others are not."""

from collections.abc import Sequence

from torch import nn
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.errors import SurgeryError
from secateur.graph.operators import arguments, module_path
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.options.selections import Selection, match_layers


def layers_to_prune(model: nn.Module, network: Network, skip: Selection | None) -> list[LinearLayer]:
    """Return the convolutions whose columns may be pruned.

    Raises:
        NameMatchError: A glob matches no convolution.
        SurgeryError: There is none, or a weight is computed from other parameters.
    """
    candidates = [layer for layer in layers_of(network) if layer.is_convolution and layer.reads]
    names = [layer.name for layer in candidates]
    skipped_names = names[:1]
    if skip is not None:
        skipped_names = match_layers(skip, names, "convolution", network.modules, network.title)
    selected_layers = [layer for layer in candidates if layer.name not in skipped_names]
    if not selected_layers:
        reasons = left_out_text(left_out(network, []))
        raise SurgeryError(f"{network.title} has no convolution whose columns can be pruned{reasons}")
    parameters = dict(model.named_parameters())
    computed_weight = next((layer.weight for layer in selected_layers if layer.weight not in parameters), None)
    if computed_weight is not None:
        raise SurgeryError(
            f"{computed_weight} is computed from other parameters; remove the parametrization before training"
        )
    return selected_layers


def left_out(network: Network, selected_layers: Sequence[LinearLayer]) -> dict[str, str]:
    """Return the convolutions that are not selected, by name, with the reasons."""
    pruned_nodes = {layer.node for layer in selected_layers}
    layers = {layer.node: layer for layer in layers_of(network)}
    reasons = {}
    for node in network.program.nodes:
        if node in pruned_nodes or rule_of(node).layer not in ("convolution", "transposed convolution"):
            continue
        layer, weight = layers.get(node), network.program.state_names.get(arguments(node)["weight"], "")
        name = layer.name if layer is not None else module_path(node) or weight or node.name
        reasons[name] = _reason(node, layer)
    return reasons


def left_out_text(reasons: dict[str, str]) -> str:
    """Return the convolutions that are left out as the end of a message, "" where there are none."""
    if not reasons:
        return ""
    return "; left out: " + ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _reason(node: Node, layer: LinearLayer | None) -> str:
    if rule_of(node).layer == "transposed convolution":
        return "it is transposed"
    if layer is None:
        return "its weight is no parameter of its own, or its channels are coupled such that no column is separate"
    return (
        "it is the first, or among those to skip" if layer.reads else "it is depthwise: it has no input channels to sum"
    )
