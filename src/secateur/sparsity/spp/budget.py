"""The number of columns to prune in each layer for a budget, and the multiply-adds that remain."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.coupling.network import Network
from secateur.coupling.operator_results import results_of
from secateur.errors import BudgetError
from secateur.masking.linear_layers import LinearLayer
from secateur.options import is_real
from secateur.options.globs import match_globs
from secateur.sparsity.dead_kernels import Kernels, layer_of, used_channels
from secateur.sparsity.spp.columns import group_numbers
from secateur.sparsity.spp.layer_selection import left_out, left_out_text

BISECTIONS = 50


@dataclass(frozen=True, eq=False)
class MacBudget:
    """A budget of multiply-adds, counted without pruned columns and without filters that no column reads any more.

    Args:
        graph: the graph of the network's channels.
        macs: the multiply-adds of each operator of the dense network.
        fraction: the fraction to keep.
    """

    graph: ChannelGraph
    macs: Mapping[Node, int]
    fraction: float

    def is_met(self, kept: Mapping[str, Tensor]) -> bool:
        """Return whether the remaining multiply-adds are within the budget.

        Args:
            kept: the columns of a layer that are kept, by the name of its weight (columns,); all of other layers.
        """
        return self.remaining_macs(kept) <= self.fraction * sum(self.macs.values()) * (1 + 1e-9)

    def remaining_macs(self, kept: Mapping[str, Tensor]) -> float:
        """Return the multiply-adds that remain; `kept` as `is_met` takes it."""
        kernels: Kernels = {
            layer_of(block).weight: _kept_kernels(block, kept.get(layer_of(block).weight))
            for block in self.graph.layers
        }
        is_used = used_channels(self.graph, kernels)
        total = float(sum(self.macs.values()))
        for block in self.graph.layers:
            layer = layer_of(block)
            columns = kept.get(layer.weight)
            share = 1.0 if columns is None else float(columns.double().mean())
            filters = float(is_used[block.span].double().mean())
            total -= self.macs[layer.node] * (1 - share * filters)
        return total


def mac_budget(network: Network, keep: Mapping[str, float] | None) -> MacBudget | None:
    """Return the budget that ends the pruning of all layers, None where only their ratios do."""
    if keep is None or "macs" not in keep:
        return None
    macs = results_of(network.program, network.example).macs
    return MacBudget(graph_of(network), macs, keep["macs"])


def prune_counts(
    network: Network,
    layers: Sequence[LinearLayer],
    groups: str,
    keep: Mapping[str, float] | None,
    ratios: Mapping[str, float] | None,
) -> dict[str, int]:
    """Return the number of groups of columns to prune, by layer.

    Args:
        network: the network.
        layers: the layers whose columns may be pruned.
        groups: "columns" or "channels".
        keep: `{"columns": ...}` or `{"macs": ...}`: the same ratio for all layers that `ratios` does not name.
        ratios: the fraction of columns to prune, by globs of layers' names.

    Raises:
        BudgetError: Neither a budget nor ratios are given, they are out of range, or the budget cannot be met.
        NameMatchError: A glob matches no layer.
    """
    if keep is None and not ratios:
        raise BudgetError("neither keep= nor ratios= is given; give a budget, such as keep={'macs': 0.5}")
    sizes = {layer.name: int(group_numbers(layer, groups).max()) + 1 for layer in layers}
    fixed_ratios = _fixed_ratios(list(sizes), ratios)
    if keep is None:
        return _pruned_groups(sizes, fixed_ratios, 0.0)
    is_budget = isinstance(keep, Mapping) and len(keep) == 1 and set(keep) <= {"macs", "columns"}
    if not is_budget or not all(is_real(value) and 0 < value <= 1 for value in keep.values()):
        raise BudgetError(f"keep={keep!r}: give {{'macs': 0.5}} or {{'columns': 0.5}}")
    if "columns" in keep:
        return _pruned_groups(sizes, fixed_ratios, 1 - keep["columns"])
    return _counts_for_macs(network, layers, sizes, fixed_ratios, keep["macs"])


def _fixed_ratios(names: Sequence[str], ratios: Mapping[str, float] | None) -> dict[str, float]:
    fixed_ratios: dict[str, float] = {}
    for glob, ratio in (ratios or {}).items():
        if not is_real(ratio) or not 0 <= ratio < 1:
            raise BudgetError(f"ratios={{{glob!r}: {ratio!r}}}: give the fraction of columns to prune, below 1")
        fixed_ratios |= dict.fromkeys(match_globs(glob, names, "convolution to prune"), float(ratio))
    return fixed_ratios


def _pruned_groups(sizes: Mapping[str, int], fixed_ratios: Mapping[str, float], ratio: float) -> dict[str, int]:
    """Return the number of groups to prune, by layer; each layer keeps one at least."""
    return {name: min(math.ceil(fixed_ratios.get(name, ratio) * size - 1e-9), size - 1) for name, size in sizes.items()}


def _counts_for_macs(
    network: Network,
    layers: Sequence[LinearLayer],
    sizes: Mapping[str, int],
    fixed_ratios: Mapping[str, float],
    fraction: float,
) -> dict[str, int]:
    """Return the counts of the smallest common ratio that meets the budget by columns alone."""
    macs = results_of(network.program, network.example).macs
    total = sum(macs.values())

    def remaining_macs(ratio: float) -> float:
        counts = _pruned_groups(sizes, fixed_ratios, ratio)
        return total - sum(macs[layer.node] * counts[layer.name] / sizes[layer.name] for layer in layers)

    if remaining_macs(1.0) > fraction * total:
        reasons = left_out_text(left_out(network, layers))
        raise BudgetError(
            f"keep={{'macs': {fraction}}} can't be met: with one column left in each layer that is not named in "
            f"ratios= {remaining_macs(1.0) / max(total, 1):.3f} is left{reasons}"
        )
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if remaining_macs(middle) <= fraction * total else (middle, high)
    return _pruned_groups(sizes, fixed_ratios, high)


def _kept_kernels(block: ChannelBlock, columns: Tensor | None) -> Tensor:
    """Return the kernels of a layer that have a kept column (channels, edges)."""
    if columns is None:
        return block.edges
    assert block.columns is not None
    counts = torch.zeros(len(block.columns), block.values.shape[1], dtype=torch.long)
    counts.scatter_add_(1, block.columns, columns.long().expand_as(block.columns))  # (groups, edges)
    filters = len(block.sources) // len(block.columns)
    return block.edges & (counts > 0).repeat_interleave(filters, 0)
