"""The longest chains of a graph of channels, one after another.

The best chain that ends in each channel follows from those before it (dynamic programming in the order of the
program). Once a chain's kernels are taken out, values behind them can only fall, so those that were found before are
upper bounds; a chain is the longest for certain as soon as its own values are found to be exact. So only channels that
come to the top of the heap, and what they depend on, are looked at again, and nothing starts from scratch.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.channel_graph.graph import ChannelGraph

NO_EDGE = -1


@dataclass(frozen=True)
class Chain:
    """One chain: the logarithm of its product, and its kernels as (block, channel of the block, edge)."""

    value: float
    kernels: tuple[tuple[int, int, int], ...]


class Chains:
    """The chains of a graph, taken out one by one.

    A chain has at least one kernel. It begins where its product would fall below 1, and may begin with edges that can't
    be pruned, but not with a batch norm: its factor belongs to what comes before.

    Args:
        graph: the graph; it is left as it is.
        fixed: names of weights whose kernels are never taken out.
    """

    def __init__(self, graph: ChannelGraph, fixed: Sequence[str] = ()) -> None:
        self.blocks = graph.blocks
        self.sources = [block.sources.numpy() for block in graph.blocks]
        self.values = [block.values.numpy().copy() for block in graph.blocks]
        self.prunable = [block.layer is not None and block.layer.weight not in fixed for block in graph.blocks]
        self.block_of = np.full(graph.size, -1)
        for number, block in enumerate(graph.blocks):
            self.block_of[block.first : block.first + len(block.sources)] = number
        self.start = np.zeros(graph.size)  # the best chain without any kernel, which may be none
        self.best = np.full(graph.size, -np.inf)  # the best chain with a kernel
        self.choice = np.full(graph.size, NO_EDGE)
        self.exact = np.zeros(graph.size, dtype=np.int64)
        self.taken = 0
        for number in range(len(graph.blocks)):
            self._sweep(number)

    def _sweep(self, number: int) -> None:
        """Values of one block's channels, for the first time."""
        block, sources, values = self.blocks[number], self.sources[number], self.values[number]
        own = slice(block.first, block.first + len(sources))
        if not self.prunable[number] and block.begins:
            self.start[own] = np.maximum((self.start[sources] + values).max(1), 0)
        reached = self._before(number, sources) + values
        self.choice[own] = np.where(np.isfinite(reached.max(1)), reached.argmax(1), NO_EDGE)
        self.best[own] = reached.max(1)

    def _before(self, number: int, sources: np.ndarray) -> np.ndarray:
        """The best chain that an edge of a block can go on from."""
        best = self.best[sources]
        before: np.ndarray = np.maximum(best, self.start[sources]) if self.prunable[number] else best
        return before

    def __iter__(self) -> Iterator[Chain]:
        """Chains with a product of at least 1, in descending order."""
        heap = [(-value, node) for node, value in enumerate(self.best.tolist()) if np.isfinite(value)]
        heapq.heapify(heap)
        while heap:
            bound, node = heapq.heappop(heap)
            self._settle(node)
            value = float(self.best[node])
            if value < -bound:
                if np.isfinite(value):
                    heapq.heappush(heap, (-value, node))
                continue
            if value < 0:
                return
            kernels = self._kernels(node)
            for number, row, column in kernels:
                self.values[number][row, column] = -np.inf
            self.taken += 1
            heapq.heappush(heap, (-value, node))
            yield Chain(value, tuple(kernels))

    def _settle(self, node: int) -> None:
        """Make a channel's value exact, and those that it depends on."""
        stack = [node]
        while stack:
            channel = stack[-1]
            edge = int(self.choice[channel])
            if edge == NO_EDGE:
                self.exact[channel] = self.taken
                stack.pop()
                continue
            number = int(self.block_of[channel])
            row = channel - self.blocks[number].first
            source = int(self.sources[number][row, edge])
            goes_on = not self.prunable[number] or self.best[source] > self.start[source]
            if goes_on and self.exact[source] != self.taken:
                stack.append(source)
                continue
            before = max(self.best[source], self.start[source]) if self.prunable[number] else self.best[source]
            if before + self.values[number][row, edge] == self.best[channel]:
                self.exact[channel] = self.taken
                stack.pop()
                continue
            reached = self._before(number, self.sources[number][row]) + self.values[number][row]
            edge = int(reached.argmax())
            self.best[channel] = reached[edge]
            self.choice[channel] = edge if np.isfinite(reached[edge]) else NO_EDGE

    def _kernels(self, node: int) -> list[tuple[int, int, int]]:
        """The kernels of the best chain that ends in a channel, from its end."""
        found = []
        while True:
            number, edge = int(self.block_of[node]), int(self.choice[node])
            row = node - self.blocks[number].first
            source = int(self.sources[number][row, edge])
            if self.prunable[number]:
                found.append((number, row, edge))
                if self.best[source] <= self.start[source]:
                    return found
            node = source
