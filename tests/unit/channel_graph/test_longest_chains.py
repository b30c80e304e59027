"""The longest chains of a graph of channels are those of a search from scratch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.channel_graph.longest_chains import Chains


def random_graph(seed: int, layers: int, width: int) -> ChannelGraph:
    """Blocks that read any channels before, some of which can't be pruned."""
    generator = torch.Generator().manual_seed(seed)
    blocks, size = [], 1 + width
    for number in range(layers):
        edges = int(torch.randint(1, 4, (1,), generator=generator))
        sources = torch.randint(0, size, (width, edges), generator=generator)
        values = torch.randn(width, edges, generator=generator, dtype=torch.float64)
        layer: Any = None if number % 3 == 2 else type("Layer", (), {"weight": f"w{number}"})()
        blocks.append(ChannelBlock(size, sources, values, "conv2d", layer, torch.zeros(1, edges, dtype=torch.long)))
        size += width
    return ChannelGraph(tuple(blocks), size, frozenset(), ())


def plain_best(graph: ChannelGraph, values: list[Tensor]) -> float:
    """The best chain with a kernel, by a search that knows nothing of what came before."""
    start, best = [0.0] * graph.size, [-math.inf] * graph.size
    for block, block_values in zip(graph.blocks, values, strict=True):
        for row in range(len(block.sources)):
            for edge, source in enumerate(block.sources[row].tolist()):
                value = float(block_values[row, edge])
                here = block.first + row
                if block.layer is None:
                    start[here] = max(start[here], start[source] + value)
                    best[here] = max(best[here], best[source] + value)
                else:
                    best[here] = max(best[here], max(best[source], start[source]) + value)
    return max(best)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_chains_are_those_of_a_search_from_scratch(seed: int, layers: int, width: int) -> None:
    graph = random_graph(seed, layers, width)
    values = [block.values.clone() for block in graph.blocks]
    for chain in Chains(graph):
        assert chain.value == pytest.approx(plain_best(graph, values), abs=1e-9) and chain.value >= 0
        assert chain.kernels
        for number, row, edge in chain.kernels:
            assert math.isfinite(float(values[number][row, edge])), "a kernel was taken twice"
            values[number][row, edge] = -math.inf
    assert plain_best(graph, values) < 1e-9
