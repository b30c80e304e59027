"""LEAN's chains as a criterion of units, to cut whole channels by them."""

import numpy as np
import torch

from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelGraph
from secateur.channel_graph.longest_chains import Chains
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores


@criterion("lean", uses="nothing")
def longest_chain_through(context: CriterionContext) -> dict[str, GroupScores]:
    """The logarithm of the product of the longest chain of operators through any of the unit's channels.

    After Schoonhoven et al. 2020, who take single kernels; that units are ranked by it is our own.
    """
    graph = graph_of(context.network)
    through = _through(graph)
    total = np.full(context.network.units + 1, -np.inf)
    for block in graph.layers:
        assert block.layer is not None
        np.maximum.at(total, block.layer.outputs.numpy(), through[block.span])
    finite = total[np.isfinite(total)]
    lowest = float(finite.min()) - 1 if len(finite) else 0.0
    values = torch.from_numpy(np.where(np.isfinite(total), total, lowest))  # units whose weights are all zero
    return {group.name: GroupScores.exact(values[group.span]) for group in context.groups}


def _through(graph: ChannelGraph) -> np.ndarray:
    """Return the longest chain through each channel, or that ends in it, (channels,)."""
    chains = Chains(graph)
    after = np.zeros(graph.size)
    for number in reversed(range(len(graph.blocks))):
        block = graph.blocks[number]
        onward = np.maximum(after[block.span], 0)[:, None] + chains.values[number]
        np.maximum.at(after, chains.sources[number], onward)
    through: np.ndarray = np.maximum(chains.best, chains.start) + after
    return through
