"""Factors of batch norms, moved into the kernels before them.

How a scale is divided between a layer and its batch norm is arbitrary, so a kernel's value is its norm times the factor
of the batch norm behind (Schoonhoven et al. 2020). It is found on the graph: activations and concatenations may lie
between, as long as the channel has no other consumer.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateur.channel_graph.graph import ChannelBlock
from secateur.coupling.rules.registry import rule_named


def with_norms_in_layers(
    blocks: Sequence[ChannelBlock], size: int, needed: Collection[int]
) -> tuple[ChannelBlock, ...]:
    """Return blocks with the factor of each batch norm in the layer whose channel it alone reads.

    A batch norm of other channels (of a sum, of pooled maps, of a channel with several consumers) keeps its factor, on
    an edge that cannot be pruned.

    Args:
        blocks: the blocks of a graph, in order.
        size: the number of its channels.
        needed: channels that the network returns.
    """
    is_movable = _channels_of_layers(blocks, size) & (_consumer_counts(blocks, size, needed) == 1)
    factors = torch.zeros(size, dtype=torch.float64)
    without_factors = []
    for block in blocks:
        if rule_named(block.operator).norm == "batch":
            input_channels = block.sources[:, 0]
            factors[input_channels[is_movable[input_channels]]] = block.values[is_movable[input_channels], 0]
            block = replace(block, values=block.values.masked_fill(is_movable[input_channels][:, None], 0.0))
        without_factors.append(block)
    return tuple(_scale_block(block, factors) if block.layer is not None else block for block in without_factors)


def _consumer_counts(blocks: Sequence[ChannelBlock], size: int, needed: Collection[int]) -> Tensor:
    """Return the number of edges from each channel, the network's output counted as one (channels,)."""
    counts = torch.zeros(size, dtype=torch.long)
    for block in blocks:
        sources = block.sources[block.sources > 0]
        counts.index_add_(0, sources, torch.ones_like(sources))
    counts[list(needed)] += 1
    return counts


def _channels_of_layers(blocks: Sequence[ChannelBlock], size: int) -> Tensor:
    """Return the channels that layers produce (channels,)."""
    of_layer = torch.zeros(size, dtype=torch.bool)
    for block in blocks:
        if block.layer is not None:
            of_layer[block.span] = True
    return of_layer


def _scale_block(block: ChannelBlock, factors: Tensor) -> ChannelBlock:
    return replace(block, values=block.values + factors[block.span][:, None])
