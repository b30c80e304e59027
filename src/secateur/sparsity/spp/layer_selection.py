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
    skipped = names[:1]
    if skip is not None:
        skipped = match_layers(skip, names, "convolution", network.modules, network.title)
    selected = [layer for layer in candidates if layer.name not in skipped]
    if not selected:
        reasons = left_out_text(left_out(network, []))
        raise SurgeryError(f"{network.title} has no convolution whose columns can be pruned{reasons}")
    parameters = dict(model.named_parameters())
    computed = next((layer.weight for layer in selected if layer.weight not in parameters), None)
    if computed is not None:
        raise SurgeryError(f"{computed} is computed from other parameters; remove the parametrization before training")
    return selected


def left_out(network: Network, selected: Sequence[LinearLayer]) -> dict[str, str]:
    """Return the convolutions that are not selected, by name, with the reasons."""
    pruned = {layer.node for layer in selected}
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
