"""Which kernels stay: those on long chains of operators, or the single ones of large norms."""

from collections.abc import Callable

import torch

from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.channel_graph.longest_chains import Chains
from secateur.sparsity.dead_kernels import Kernels


def name_of(block: ChannelBlock) -> str:
    """The weight whose kernels a block's edges are."""
    assert block.layer is not None
    return block.layer.weight


def by_chains(graph: ChannelGraph, own: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """The kernels of the longest chains, each whole, so that the last may exceed the quota; where all chains do not
    suffice, the kernels with the largest norms."""
    chains = Chains(graph, fixed=[name_of(block) for block in graph.layers if name_of(block) not in own])
    kept = {name: torch.zeros_like(values, dtype=torch.bool) for name, values in _values(graph, own).items()}
    count = 0
    for chain in chains:
        for number, row, edge in chain.kernels:
            kept[name_of(graph.blocks[number])][row, edge] = True
        count += len(chain.kernels)
        if count >= quota:
            break
    missing = max(quota - count, 0)
    if missing:
        rest = {name: values.masked_fill(kept[name], -torch.inf) for name, values in _values(graph, own).items()}
        kept = {name: kept[name] | more for name, more in _largest(rest, missing).items()}
    return kept, (chains.taken, missing)


def by_norm(graph: ChannelGraph, own: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """Kernels with the largest operator norms, times the batch norm behind."""
    return _largest(_values(graph, own), quota), (0, quota)


def by_l1(graph: ChannelGraph, own: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """Kernels with the largest sums of absolute weights."""
    sums = {name_of(b): b.sums.log() for b in graph.layers if name_of(b) in own and b.sums is not None}
    return _largest(sums, quota), (0, quota)


def _values(graph: ChannelGraph, own: frozenset[str]) -> Kernels:
    """The logarithm of each kernel's norm, with the batch norm behind."""
    return {name_of(block): block.values for block in graph.layers if name_of(block) in own}


def _largest(values: Kernels, count: int) -> Kernels:
    """The so many largest of all, that are not -inf; of equals the first."""
    flat = torch.cat([each.flatten() for each in values.values()])
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    order = flat.argsort(descending=True, stable=True)[:count]
    chosen[order] = torch.isfinite(flat[order])
    parts = chosen.split([each.numel() for each in values.values()])
    return {name: part.view_as(each) for (name, each), part in zip(values.items(), parts, strict=True)}


Select = Callable[[ChannelGraph, frozenset[str], int], tuple[Kernels, tuple[int, int]]]
SELECT: dict[str, Select] = {"lean": by_chains, "norm": by_norm, "l1": by_l1}
