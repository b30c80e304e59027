"""Networks as label tracing returns them, without trial cuts."""

from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.coupling.trace_groups import trace_groups
from secateur.data.batch import Batch
from secateur.graph.export import export_program


def trace_without_trials(model: nn.Module, example: Tensor) -> Network:
    """Return the network of a model, which is set to evaluation mode."""
    batch = Batch((example,), {})
    return trace_groups(model.eval(), batch, export_program(model, batch))
