"""The memory that a refit of the widest layer takes, checked before any work is done."""

import math
from collections.abc import Sequence

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import BudgetError
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.masking.row_products import FEATURES_PER_ROW
from secateur.recovery.layer_positions import counted_examples, positions_per_example
from secateur.recovery.pruned_layer import row_limit
from secateur.utils.available_memory import available_bytes

DOUBLE = 8


def check_refit_memory(network: Network, microbatches: Sequence[Batch], available: int | None = None) -> None:
    """Check that the layers of a network can be refitted in the memory that is free.

    Args:
        network: the traced network.
        microbatches: the examples.
        available: the bytes that are free; by default as the system says.

    Raises:
        BudgetError: the refit of a layer takes more than that.
    """
    free_bytes = available_bytes(network.device) if available is None else available
    if free_bytes is None:
        return
    layers, examples = layers_of(network), counted_examples(network.program, microbatches)
    sizes = {layer: refit_bytes(layer, examples * positions_per_example(layer, network.program)) for layer in layers}
    widest = max(layers, key=lambda layer: sizes[layer], default=None)
    if widest is not None and sizes[widest] > free_bytes:
        raise BudgetError(
            f"the refit of {widest.name}, which reads {widest.features_of_group:,} values, takes "
            f"{sizes[widest] / 1e9:.1f} GB of memory, and {free_bytes / 1e9:.1f} GB are free; free some, leave its "
            "group out by skip=, or give repair='mean' or None"
        )


def refit_bytes(layer: LinearLayer, rows: float) -> int:
    """Return about how many bytes the refit of a layer takes at most, beside the values that it reads.

    Where rows are few they are held. Elsewhere the products of features are held for the rows that are fitted, those
    held out, and as a factor; moments, solutions and what they are compared with take a few times the weights.

    Args:
        layer: the layer.
        rows: the number of its rows, those of all examples.
    """
    features, outputs = layer.features_of_group + 1, len(layer.outputs) // layer.groups
    rows = math.ceil(min(rows, row_limit(features)))
    weights = 6 * features * outputs
    if FEATURES_PER_ROW * rows <= features:
        return DOUBLE * layer.groups * (4 * rows * (features + rows) + weights)
    return DOUBLE * layer.groups * (3 * features**2 + weights)
