"""The graph of channels while it is built: blocks of edges, and tensors of channel numbers in place of activations."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.channel_graph.batch_norm_edges import with_norms_in_layers
from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.coupling.labels import broadcast_labels, squeeze_expanded
from secateur.coupling.network import Network
from secateur.coupling.operator_results import results_of
from secateur.coupling.rules.context import frozen
from secateur.graph.operators import module_path, operator_name
from secateur.masking.linear_layers import layers_of
from secateur.masking.transposed_layers import transposed_layers_of

NO_CHANNEL = 0


class ChannelGraphBuilder:
    """The blocks and channel numbers of a graph, as far as the program has been followed.

    Args:
        network: the traced network.

    Attributes:
        shapes: the shapes of all results, by operator.
        layers: the linear layers and convolutions, by operator.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.program = network, network.program
        self.shapes = results_of(network.program, network.example).shapes
        self.layers = {layer.node: layer for layer in (*layers_of(network), *transposed_layers_of(network))}
        self._blocks: list[ChannelBlock] = []
        self._breaks: list[str] = []
        self._needed: set[int] = set()
        self._size = 1

    def graph(self) -> ChannelGraph:
        """Return the graph of all blocks that were added."""
        blocks = with_norms_in_layers(self._blocks, self._size, self._needed)
        return ChannelGraph(blocks, self._size, frozenset(self._needed), tuple(dict.fromkeys(self._breaks)))

    def mark_needed(self, values: Any) -> bool:
        """Mark all channels in some tensors of numbers as needed; return whether there are any."""
        tensors = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
        numbers = {int(number) for tensor in tensors for number in torch.unique(squeeze_expanded(tensor))}
        self._needed |= numbers - {NO_CHANNEL}
        return bool(numbers - {NO_CHANNEL})

    def end_chains(self, node: Node, args: Mapping[str, Any]) -> Any:
        """End the chains that an operator reads, and return new channels for its results."""
        if not self.mark_needed(args):
            return frozen(self.shapes[node])
        self._breaks.append(f"{operator_name(node)} in {module_path(node) or 'the model itself'}")
        return self.new_channels(self.shapes[node])

    def new_channels(self, shapes: Any) -> Any:
        """Return the numbers of channels without edges, along the second axis, or the only one, of each shape."""
        return pytree.tree_map(
            lambda leaf: self._new_map(leaf) if is_tensor_shape(leaf) else leaf, shapes, is_leaf=is_tensor_shape
        )

    def add(self, node: Node, sources: Tensor, values: Tensor, **fields: Any) -> Tensor:
        """Add channels, and return their numbers (channels,).

        Args:
            node: the operator that produces them.
            sources: the channels from which edges lead to each of them (channels, edges).
            values: the logarithms of the edges' norms (channels, edges).
            fields: further fields of the block.
        """
        self._blocks.append(ChannelBlock(self._size, sources, values.double(), operator_name(node), **fields))
        self._size += len(sources)
        return torch.arange(self._size - len(sources), self._size)

    def scaled_map(self, node: Node, numbers: Tensor, factor: float) -> Tensor:
        """Return the numbers of channels behind those of a map, each by an edge of a norm that cannot be pruned."""
        channels, inverse = torch.unique(squeeze_expanded(numbers), return_inverse=True)
        logs = torch.where(channels > NO_CHANNEL, math.log(factor), 0.0)
        targets = self.add(node, channels[:, None], logs[:, None])
        return torch.where(channels > NO_CHANNEL, targets, NO_CHANNEL)[inverse].expand(numbers.shape)

    def channels_along(self, node: Node, numbers: Tensor, dim: int) -> Tensor:
        """Return one channel for each index along an axis (size of dim,).

        A map that is composed of several, as by a pixel shuffle, becomes a channel of its own, with an edge of norm 1
        from each of them.
        """
        rows = squeeze_expanded(numbers, keep=dim).movedim(dim, 0).reshape(numbers.shape[dim], -1)
        channels = rows[:, 0].clone()
        mixed_rows = torch.nonzero((rows != rows[:, :1]).any(1)).flatten()
        if not len(mixed_rows):
            return channels
        components = [distinct[distinct > NO_CHANNEL] for distinct in (torch.unique(row) for row in rows[mixed_rows])]
        sources = padded_rows(components)
        channels[mixed_rows] = self.add(node, sources, torch.where(sources > NO_CHANNEL, 0.0, -torch.inf))
        return channels

    def _new_map(self, shape: torch.Size) -> Tensor:
        if not shape:
            return torch.zeros(shape, dtype=torch.long)
        dim = 1 if len(shape) > 1 else 0
        first = self._size
        self._size += shape[dim]
        return broadcast_labels(torch.arange(first, self._size), dim, shape)


def padded_rows(rows: list[Tensor]) -> Tensor:
    """Stack rows of different lengths, filled up with `NO_CHANNEL` (rows, longest)."""
    padded = torch.full((len(rows), max(map(len, rows))), NO_CHANNEL, dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def is_tensor_shape(value: Any) -> bool:
    """Return whether a value is a shape."""
    return isinstance(value, torch.Size)
