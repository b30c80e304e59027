"""Kernels that have become useless: kernels that read dead channels, and kernels of channels that have no consumers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.coupling.plan import Plan
from secateur.graph.operators import arguments
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.batch_norms import has_own_statistics, norm_behind
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand
from secateur.surgery.cut import cut
from secateur.surgery.recipe import Recipe, recipe_of
from secateur.utils.dtypes import widest_type

Kernels = dict[str, Tensor]


def cut_dead_channels(
    model: nn.Module, network: Network, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Plan, Recipe]:
    """Cut the channels of a model that have no kernels other than zero, or no consumers.

    Args:
        model: the model, whose pruned kernels are zero; constants are moved into its biases.
        network: its trace, which shares its weights.
        optimizer: its optimizer, whose state is cut with the parameters.

    Returns:
        The smaller model, the plan and the recipe that it was cut by.
    """
    graph = graph_of(network)
    kept = {layer_of(block).weight: block.values.isfinite() for block in graph.layers}
    kept = remove_dead_kernels(network, graph, kept, 0.0)
    zero_kernels(network, graph, kept)  # kernels without consumers, also where other layers write into their channel
    plan = plan_of(network, graph, kept)
    recipe = recipe_of(model, plan)
    return cut(model, plan, optimizer=optimizer), plan, recipe


def remove_dead_kernels(network: Network, graph: ChannelGraph, kept: Kernels, variance: float) -> Kernels:
    """Remove kernels without effect as well; the constants that they pass on are added to the layers that read them.

    Args:
        network: the network, whose weights are changed to those of the kernels that are kept.
        graph: the graph of its channels.
        kept: the kernels that are kept, by the name of the weight (channels, edges); of other layers all are.
        variance: channels whose batch norm has a running variance below this are constants.

    Returns:
        The kernels of every layer that are still kept.
    """
    kept = {
        layer_of(block).weight: kept.get(layer_of(block).weight, block.edges) & torch.isfinite(block.values)
        for block in graph.layers
    }
    _remove_constant_channels(network, graph, kept, variance)
    zero_kernels(network, graph, kept)
    kept = _fold_constants(network, graph, kept, _live_channels(graph, kept))
    is_used = used_channels(graph, kept)
    return {
        layer_of(block).weight: kept[layer_of(block).weight] & is_used[block.span][:, None] for block in graph.layers
    }  # fmt: skip


def zero_kernels(network: Network, graph: ChannelGraph, kept: Kernels) -> None:
    """Set the kernels that are not kept to zero."""
    with torch.no_grad():
        for block in graph.layers:
            weight = network.program.state(layer_of(block).weight)
            weight.mul_(kept_entries(network, block, kept).to(weight))


def kept_entries(network: Network, block: ChannelBlock, kept: Kernels) -> Tensor:
    """Return the entries of a layer's weight that belong to kept kernels, in the weight's shape."""
    layer = layer_of(block)
    return layer.weight_of(block.over_entries(kept[layer.weight]), network.program.state(layer.weight))


def plan_of(network: Network, graph: ChannelGraph, kept: Kernels) -> Plan:
    """Return the plan that removes units whose channels have neither kernels nor consumers, as far as groups allow."""
    is_alive = torch.zeros(network.units + 1, dtype=torch.bool)
    weights = set()
    for block in graph.layers:
        layer = layer_of(block)
        weights.add(layer.weight)
        is_alive[layer.outputs[kept[layer.weight].any(1)]] = True
        is_input_used = block.over_entries(kept[layer.weight]).any(1).reshape(-1, layer.kernel).any(1)  # (inputs,)
        is_alive[layer.inputs[is_input_used]] = True
    kept_units = {group.name: _kept_units(network, group, is_alive, weights) for group in network.groups}
    share = sum(len(units) for units in kept_units.values()) / max(network.units, 1)
    return Plan(network, kept_units, {}, network.cost(kept_units), network.cost(), {"units": share})


def used_channels(graph: ChannelGraph, kept: Kernels) -> Tensor:
    """Return the channels on which the output depends by the kept kernels (channels,)."""
    is_used = torch.zeros(graph.size, dtype=torch.bool)
    is_used[list(graph.needed)] = True
    for block in reversed(graph.blocks):
        reads = is_used[block.span][:, None].expand(block.sources.shape)
        reads = reads & kept[block.layer.weight] if block.layer is not None else reads
        is_used[block.sources[reads]] = True
    return is_used


def layer_of(block: ChannelBlock) -> LinearLayer:
    """Return the layer whose kernels a block's edges are."""
    assert block.layer is not None
    return block.layer


def _kept_units(network: Network, group: Group, is_alive: Tensor, weights: set[str]) -> Tensor:
    """Return the units of a group that are kept: all, where other operators than layers produce them."""
    producers = {m.tensor for m in group.members if m.is_producer and network.program.state(m.tensor).dim() > 1}
    if not producers <= weights:
        return torch.arange(group.size)
    alive = is_alive[group.span]
    count = max(int(alive.sum()), group.fewest)
    count += -count % group.multiple
    order = alive.long().argsort(descending=True, stable=True)
    return order[: min(count, group.size)].sort().values


def _live_channels(graph: ChannelGraph, kept: Kernels) -> Tensor:
    """Return the channels that depend on the input: a kept kernel reads one that does (channels,)."""
    live = torch.ones(graph.size, dtype=torch.bool)
    for block in graph.blocks:
        reads_live = live[block.sources]
        if block.layer is not None:
            live[block.span] = (reads_live & kept[block.layer.weight]).any(1)
        else:
            live[block.span] = (reads_live & (block.sources > 0)).any(1)
    return live


def _remove_constant_channels(network: Network, graph: ChannelGraph, kept: Kernels, variance: float) -> None:
    """Remove the kernels of channels that hardly vary; the mean of their batch norm becomes what is left of them."""
    for block in graph.layers:
        norm = norm_behind(layer_of(block).node) if layer_of(block).dim == 1 else None
        if norm is None or not has_own_statistics(norm):  # a mean can stand in for one layer's channel alone
            continue
        norm_arguments, state = arguments(norm), network.program.state_names
        constant = (network.program.state(state[norm_arguments["running_var"]]) < variance).cpu()
        if not bool(constant.any()):
            continue
        kept[layer_of(block).weight][constant] = False
        mean = network.program.state(state[norm_arguments["running_mean"]])
        bias = arguments(layer_of(block).node).get("bias")
        level = network.program.state(state[bias]).detach() if isinstance(bias, Node) else torch.zeros_like(mean)
        mean.data[constant.to(mean.device)] = level[constant.to(mean.device)]


def _fold_constants(network: Network, graph: ChannelGraph, kept: Kernels, live: Tensor) -> Kernels:
    """Remove kernels that read constants, and add their results to the layer's bias; without one they are kept."""
    means = _input_means(network, graph)
    remaining = dict(kept)
    for block in graph.layers:
        layer = layer_of(block)
        idle = kept[layer.weight] & ~live[block.sources]
        if not bool(idle.any()):
            continue
        weight = network.program.state(layer.weight).detach()
        matrix = layer.matrix(weight).double().cpu() * block.over_entries(idle)
        level = means[layer].view(layer.groups, -1).repeat_interleave(layer.kernel, 1)
        constant = torch.einsum("gof,gf->go", matrix, level).flatten() / layer.results_per_place
        if not layer.constant or layer.kind == "new":
            idle = idle & (constant == 0)[:, None]
        else:
            bias = network.program.state(layer.constant)
            bias.data.add_(constant.to(bias), alpha=1 if layer.kind == "bias" else -1)
        remaining[layer.weight] = kept[layer.weight] & ~idle
    zero_kernels(network, graph, remaining)
    return remaining


def _input_means(network: Network, graph: ChannelGraph) -> dict[LinearLayer, Tensor]:
    """Return the mean of each layer's input on the traced example (inputs,)."""
    means: dict[LinearLayer, Tensor] = {}

    def mean_recorder(layer: LinearLayer) -> OpOverride:
        def record_mean(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = operand(layer, args, kwargs)
            others = [dim for dim in range(x.dim()) if dim != layer.dim % x.dim()]
            means[layer] = x.mean(others, dtype=widest_type(x)).cpu().double()
            return target(*args, **kwargs)

        return record_mean

    with torch.no_grad():
        overrides = {layer_of(block).node: mean_recorder(layer_of(block)) for block in graph.layers}
        network.program.forward(network.example, overrides)
    return means
