"""The memory that block reconstruction takes, compared with what is free before it starts."""

from torch import Tensor

from secateur.coupling.network import Network
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.reconstruction_layers import reconstruction_blocks
from secateur.utils.available_memory import available_bytes

VECTORS = 6  # in double precision: weights, best weights, direction, steps, slopes, and the slopes before these
WORKING = 3  # copies of one layer in double precision, while its weights or its step are computed
DOUBLE, SINGLE = 8, 4


def adapt_shortage(network: Network, mask: Tensor, available: int | None = None) -> str:
    """Return a text if there is no memory for block reconstruction, else "".

    Args:
        network: the dense network.
        mask: which units are kept (units + 1,).
        available: the bytes that are free; by default as the system says.
    """
    free_bytes = available_bytes(network.device) if available is None else available
    needed_bytes = adapt_bytes(network, mask)
    if free_bytes is None or needed_bytes <= free_bytes:
        return ""
    return (
        f"adapt was left out: it takes {needed_bytes / 1e9:.1f} GB of memory for layers that are solved for together, "
        f"and {free_bytes / 1e9:.1f} GB are free; free some, or give repair='refit'"
    )


def adapt_bytes(network: Network, mask: Tensor) -> int:
    """Return about how many bytes block reconstruction takes at most, beside the models and values between layers.

    Args:
        network: the dense network.
        mask: which units are kept (units + 1,).
    """
    most_bytes = 0
    for block in reconstruction_blocks(network):
        layers = tuple(dict.fromkeys((*block.producers, *block.consumers)))
        weights = sum(kept_weights(layer, mask) for layer in layers)
        factors = sum(layer.groups * layer.features_of_group**2 for layer in layers)
        largest = max(len(layer.outputs) * layer.features_of_group for layer in layers)
        most_bytes = max(most_bytes, DOUBLE * (VECTORS * weights + WORKING * largest) + SINGLE * factors)
    return most_bytes


def kept_weights(layer: LinearLayer, mask: Tensor) -> int:
    """Return how many weights of a layer are kept."""
    outputs, features = mask[layer.outputs].view(layer.groups, -1).sum(1), layer.features(mask).sum(1)
    return int((outputs * (features + 1)).sum())
