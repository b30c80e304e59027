"""The longest chains of a graph of channels, one after another.

The best chain that ends in each channel follows from those before it (dynamic programming in the order of the
program). Once a chain's kernels are removed, values behind them can only decrease, so earlier values are upper bounds;
a chain is the longest for certain as soon as its own values are exact. So only channels at the top of the heap, and
those that they depend on, are computed anew.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.channel_graph.graph import ChannelGraph

NO_EDGE = -1


@dataclass(frozen=True)
class Chain:
    """A chain of kernels.

    Args:
        value: the logarithm of the product of its norms.
        kernels: its kernels from its end, as (block, channel of the block, edge).
    """

    value: float
    kernels: tuple[tuple[int, int, int], ...]


class Chains:
    """The chains of a graph, removed one by one.

    A chain has at least one kernel. It begins where its product would fall below 1, and may begin with edges that
    cannot be pruned, but not with a batch norm: its factor belongs to the kernels before it.

    Args:
        graph: the graph; it is not changed.
        fixed: names of weights whose kernels are never removed.

    Attributes:
        blocks: the blocks of the graph.
        sources, values: of each block, as in the graph; removed kernels have a value of -inf.
        start: the value of the best chain without kernels to each channel, possibly the empty one (channels,).
        best: the value of the best chain with a kernel to each channel, an upper bound after removals (channels,).
        taken: the number of chains removed so far.

    Examples:
        >>> import torch, secateur as sc
        >>> from secateur.channel_graph.build import graph_of
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[2.0, 4.0]])), model[1].weight.data.fill_(3.0)
        >>> chains = Chains(graph_of(sc.trace(model, torch.ones(1, 2))))
        >>> [round(float(np.exp(chain.value)), 6) for chain in chains]
        [12.0, 2.0]
    """

    def __init__(self, graph: ChannelGraph, fixed: Sequence[str] = ()) -> None:
        self.blocks = graph.blocks
        self.sources = [block.sources.numpy() for block in graph.blocks]
        self.values = [block.values.numpy().copy() for block in graph.blocks]
        self._prunable = [block.layer is not None and block.layer.weight not in fixed for block in graph.blocks]
        self._block_of = np.full(graph.size, -1)
        for number, block in enumerate(graph.blocks):
            self._block_of[block.span] = number
        self.start = np.zeros(graph.size)
        self.best = np.full(graph.size, -np.inf)
        self._choice = np.full(graph.size, NO_EDGE)  # the last edge of the best chain
        self._exact_at = np.zeros(graph.size, dtype=np.int64)  # the value of `taken` for which `best` is exact
        self.taken = 0
        for number in range(len(graph.blocks)):
            self._sweep(number)

    def __iter__(self) -> Iterator[Chain]:
        """Yield chains with a product of at least 1, in descending order, and remove their kernels."""
        heap = [(-value, channel) for channel, value in enumerate(self.best.tolist()) if np.isfinite(value)]
        heapq.heapify(heap)
        while heap:
            bound, channel = heapq.heappop(heap)
            self._make_exact(channel)
            value = float(self.best[channel])
            if value < -bound:
                if np.isfinite(value):
                    heapq.heappush(heap, (-value, channel))
                continue
            if value < 0:
                return
            kernels = self._kernels(channel)
            for number, row, edge in kernels:
                self.values[number][row, edge] = -np.inf
            self.taken += 1
            heapq.heappush(heap, (-value, channel))
            yield Chain(value, tuple(kernels))

    def _sweep(self, number: int) -> None:
        """Compute the values of one block's channels for the first time."""
        block, sources, values = self.blocks[number], self.sources[number], self.values[number]
        if not self._prunable[number] and block.begins:
            self.start[block.span] = np.maximum((self.start[sources] + values).max(1), 0)
        chain_values = self._best_before(number, sources) + values
        self._choice[block.span] = np.where(np.isfinite(chain_values.max(1)), chain_values.argmax(1), NO_EDGE)
        self.best[block.span] = chain_values.max(1)

    def _best_before(self, number: int, sources: np.ndarray | int) -> np.ndarray:
        """Return the value of the best chain that edges of a block can continue, by the edges' sources."""
        best = self.best[sources]
        before: np.ndarray = np.maximum(best, self.start[sources]) if self._prunable[number] else best
        return before

    def _edge_of(self, channel: int) -> tuple[int, int, int, int]:
        """Return the last edge of the best chain to a channel: block, channel of the block, edge, source."""
        number, edge = int(self._block_of[channel]), int(self._choice[channel])
        row = channel - self.blocks[number].first
        return number, row, edge, int(self.sources[number][row, edge])

    def _make_exact(self, channel: int) -> None:
        """Make the value of a channel exact, and those that it depends on."""
        stack = [channel]
        while stack:
            current = stack[-1]
            if self._choice[current] == NO_EDGE:
                self._exact_at[stack.pop()] = self.taken
                continue
            number, row, edge, source = self._edge_of(current)
            continues = not self._prunable[number] or self.best[source] > self.start[source]
            if continues and self._exact_at[source] != self.taken:
                stack.append(source)
            elif self._best_before(number, source) + self.values[number][row, edge] == self.best[current]:
                self._exact_at[stack.pop()] = self.taken
            else:
                chain_values = self._best_before(number, self.sources[number][row]) + self.values[number][row]
                best_edge = int(chain_values.argmax())
                self.best[current] = chain_values[best_edge]
                self._choice[current] = best_edge if np.isfinite(chain_values[best_edge]) else NO_EDGE

    def _kernels(self, channel: int) -> list[tuple[int, int, int]]:
        """Return the kernels of the best chain that ends in a channel, from its end."""
        kernels = []
        while True:
            number, row, edge, source = self._edge_of(channel)
            if self._prunable[number]:
                kernels.append((number, row, edge))
                if self.best[source] <= self.start[source]:
                    return kernels
            channel = source
