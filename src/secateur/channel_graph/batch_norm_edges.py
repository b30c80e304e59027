"""Batch norms as part of the kernels before them.

How a scale is divided between a layer and its batch norm is arbitrary, so a kernel's value is its norm times the factor
of the batch norm behind (Schoonhoven et al. 2020). It is found on the graph: activations and concatenations may lie
between, as long as nothing else reads the channel.
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
    """The same blocks, the factor of each batch norm moved to the layer whose channel it alone reads.

    A batch norm of other channels (of a sum, of pooled maps, of what others read as well) keeps its factor, on an edge
    that can't be pruned.

    Args:
        blocks: of a graph, in order.
        size: the number of its channels.
        needed: channels that the network returns.
    """
    consumers = torch.zeros(size, dtype=torch.long)
    for block in blocks:
        sources = block.sources[block.sources > 0]
        consumers.index_add_(0, sources, torch.ones_like(sources))
    consumers[list(needed)] += 1
    factors = torch.zeros(size, dtype=torch.float64)
    of_layer = torch.zeros(size, dtype=torch.bool)
    for block in blocks:
        if block.layer is not None:
            of_layer[block.span] = True
    mine = of_layer & (consumers == 1)
    found = []
    for block in blocks:
        if rule_named(block.operator).norm == "batch":
            read = block.sources[:, 0]
            factors[read[mine[read]]] = block.values[mine[read], 0]
            block = replace(block, values=_without(block.values, mine[read]))
        found.append(block)
    return tuple(_scaled(block, factors) if block.layer is not None else block for block in found)


def _without(values: Tensor, moved: Tensor) -> Tensor:
    """The values of edges whose factor has moved become 1. (channels, 1)"""
    return values.masked_fill(moved[:, None], 0.0)


def _scaled(block: ChannelBlock, factors: Tensor) -> ChannelBlock:
    return replace(block, values=block.values + factors[block.span][:, None])
