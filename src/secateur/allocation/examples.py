"""Examples to plan with, checked on the traced network."""

from typing import Any

import torch

from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import input_error
from secateur.errors import SecateurError
from secateur.importance.context import as_examples
from secateur.importance.data_checks import batches_for, check_program_sizes
from secateur.importance.input_checks import check_inputs


def checked_examples(network: Network, data: Any, by_example: bool) -> list[Batch]:
    """Return the examples as the network takes them.

    Args:
        network: the traced network.
        data: the examples, as `score` takes them.
        by_example: whether the first axis of outputs must be the examples.

    Raises:
        DataError: they can't be used.
    """
    dtype = next((network.program.state(name).dtype for name in network.program.parameters), None)

    def run(batch: Batch) -> Any:
        try:
            return network.program.forward(batch)
        except SecateurError:
            raise
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            raise input_error(network.title, batch, failure, dtype) from failure

    batches = as_examples(network, batches_for(network, data))
    batches = [on_device(batch, network.device) for batch in batches]
    with torch.no_grad():
        check_inputs(run, batches, by_example=by_example)
    check_program_sizes(network, batches)
    return batches
