"""The layers that block reconstruction solves for together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secateur.coupling.network import Network
from secateur.masking.linear_layers import LinearLayer, layers_of

DEPTH = 2


@dataclass(frozen=True, eq=False)
class ReconstructionBlock:
    """Layers that are refitted together.

    Args:
        makers: a layer, and those that make units of the same group before any of them is read.
        consumers: the layers that read these units next, and those that read what these make.
    """

    makers: tuple[LinearLayer, ...]
    consumers: tuple[LinearLayer, ...]


def reconstruction_blocks(network: Network) -> Iterator[ReconstructionBlock]:
    """Yield every layer that produces units with the layers that read them, in the order in which they run."""
    layers = layers_of(network)
    covered: set[LinearLayer] = set()
    for layer in layers:
        makers, consumers = _next(network, layer, layers)
        if layer in covered or not consumers:
            continue
        covered |= set(makers)
        ring = consumers
        for _ in range(DEPTH - 1):
            ring = [next_layer for consumer in ring for next_layer in _next(network, consumer, layers)[1]]
            consumers = consumers + ring
        yield ReconstructionBlock(tuple(makers), tuple(sorted(set(consumers), key=layers.index)))


def _next(
    network: Network, layer: LinearLayer, layers: Sequence[LinearLayer]
) -> tuple[list[LinearLayer], list[LinearLayer]]:
    """Return a layer and the others that produce units of its group, and their consumers before the next producer."""
    group = next((candidate for candidate in network.groups if candidate.owns(layer.outputs)), None)
    makers, consumers = [layer], list[LinearLayer]()
    if group is None:
        return makers, consumers
    for candidate in layers[layers.index(layer) + 1 :]:
        if candidate.reads and group.owns(candidate.inputs):
            consumers.append(candidate)
        if group.owns(candidate.outputs):
            if consumers:
                break
            makers.append(candidate)
    return makers, consumers
