"""Examples to plan with, checked on the traced network."""

from typing import Any

import torch
from torch import nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import input_error
from secateur.errors import SecateurError
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.losses import Loss
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.data_checks import batches_for, check_program_sizes
from secateur.importance.input_checks import check_inputs
from secateur.surgery.recipe import check_shapes


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


def checked_calibration(network: Network, data: Any, loss: Loss | None, model: nn.Module | None) -> Calibration:
    """Return the examples to try plans on, and the dense model if it is given.

    Args:
        network: the traced network.
        data: the examples, as `score` takes them.
        loss: the loss of a user, or None for the default one.
        model: the dense model, or None.

    Raises:
        DataError: the examples cannot be used.
        SecateurError: the model is not the one that was traced.
    """
    batches = checked_examples(network, data, by_example=loss is None)
    dense = None if model is None else bake_parametrizations(model)
    if dense is not None:
        check_shapes(dense, network)
    return Calibration(network, network_microbatches(network, batches), dense)
