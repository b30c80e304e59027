"""The network of a model that is trained: traced before, or now."""

from typing import Any

from torch import nn

from secateur.coupling.network import Network
from secateur.graph.parametrizations import bake_parametrizations
from secateur.surgery.recipe import check_shapes
from secateur.tracing import trace


def traced_network(model: nn.Module, example_inputs: Any) -> Network:
    """Return the network of a model: one that was traced before, or by a trace now.

    Args:
        model: the model.
        example_inputs: inputs as `trace` takes them, or the network.

    Raises:
        SurgeryError: the network is of a model of other shapes.
    """
    if not isinstance(example_inputs, Network):
        return trace(model, example_inputs)
    check_shapes(bake_parametrizations(model), example_inputs)
    return example_inputs
