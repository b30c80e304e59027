"""The choice of kernels to keep: those on long chains of operators, or single ones of large norms."""

from collections.abc import Callable

import torch

from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.channel_graph.longest_chains import Chains
from secateur.sparsity.dead_kernels import Kernels


def name_of(block: ChannelBlock) -> str:
    """Return the name of the weight whose kernels a block's edges are."""
    assert block.layer is not None
    return block.layer.weight


def by_chains(graph: ChannelGraph, prunable: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """Return the kernels of the longest chains, each whole, so that the last may exceed the quota.

    Where all chains do not suffice, the kernels with the largest norms are added.

    Args:
        graph: the graph of channels.
        prunable: the weights whose kernels may be pruned.
        quota: the number of kernels to keep.

    Returns:
        The kernels to keep, and the numbers of chains and of added kernels.
    """
    chains = Chains(graph, fixed=[name_of(block) for block in graph.layers if name_of(block) not in prunable])
    kept = {
        name: torch.zeros_like(values, dtype=torch.bool) for name, values in _kernel_values(graph, prunable).items()
    }
    count = 0
    for chain in chains:
        for number, row, edge in chain.kernels:
            kept[name_of(graph.blocks[number])][row, edge] = True
        count += len(chain.kernels)
        if count >= quota:
            break
    missing = max(quota - count, 0)
    if missing:
        other_values = {
            name: values.masked_fill(kept[name], -torch.inf) for name, values in _kernel_values(graph, prunable).items()
        }
        kept = {name: kept[name] | mask for name, mask in _largest(other_values, missing).items()}
    return kept, (chains.taken, missing)


def by_norm(graph: ChannelGraph, prunable: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """Return the kernels with the largest operator norms, times the batch norm behind."""
    return _largest(_kernel_values(graph, prunable), quota), (0, quota)


def by_l1(graph: ChannelGraph, prunable: frozenset[str], quota: int) -> tuple[Kernels, tuple[int, int]]:
    """Return the kernels with the largest sums of absolute weights."""
    sums = {name_of(b): b.sums.log() for b in graph.layers if name_of(b) in prunable and b.sums is not None}
    return _largest(sums, quota), (0, quota)


def _kernel_values(graph: ChannelGraph, prunable: frozenset[str]) -> Kernels:
    """Return the logarithm of each kernel's norm, with the batch norm behind."""
    return {name_of(block): block.values for block in graph.layers if name_of(block) in prunable}


def _largest(values: Kernels, count: int) -> Kernels:
    """Return the largest of all values that are not -inf, so many; of equals the first."""
    flat = torch.cat([norms.flatten() for norms in values.values()])
    is_chosen = torch.zeros_like(flat, dtype=torch.bool)
    order = flat.argsort(descending=True, stable=True)[:count]
    is_chosen[order] = torch.isfinite(flat[order])
    masks = is_chosen.split([norms.numel() for norms in values.values()])
    return {name: mask.view_as(norms) for (name, norms), mask in zip(values.items(), masks, strict=True)}


Select = Callable[[ChannelGraph, frozenset[str], int], tuple[Kernels, tuple[int, int]]]
SELECT: dict[str, Select] = {"lean": by_chains, "norm": by_norm, "l1": by_l1}
