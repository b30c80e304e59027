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
        producers: a layer, and those that produce units of the same group before any of them is read.
        consumers: the layers that read these units next, and those that read what these produce.
    """

    producers: tuple[LinearLayer, ...]
    consumers: tuple[LinearLayer, ...]


def reconstruction_blocks(network: Network) -> Iterator[ReconstructionBlock]:
    """Yield every layer that produces units with the layers that read them, in the order in which they run."""
    layers = layers_of(network)
    visited: set[LinearLayer] = set()
    for layer in layers:
        producers, consumers = _next(network, layer, layers)
        if layer in visited or not consumers:
            continue
        visited |= set(producers)
        ring = consumers
        for _ in range(DEPTH - 1):
            ring = [next_layer for consumer in ring for next_layer in _next(network, consumer, layers)[1]]
            consumers = consumers + ring
        yield ReconstructionBlock(tuple(producers), tuple(sorted(set(consumers), key=layers.index)))


def _next(
    network: Network, layer: LinearLayer, layers: Sequence[LinearLayer]
) -> tuple[list[LinearLayer], list[LinearLayer]]:
    """Return a layer and the others that produce units of its group, and their consumers before the next producer."""
    group = next((candidate for candidate in network.groups if candidate.owns(layer.outputs)), None)
    producers, consumers = [layer], list[LinearLayer]()
    if group is None:
        return producers, consumers
    for candidate in layers[layers.index(layer) + 1 :]:
        if candidate.reads and group.owns(candidate.inputs):
            consumers.append(candidate)
        if group.owns(candidate.outputs):
            if consumers:
                break
            producers.append(candidate)
    return producers, consumers
