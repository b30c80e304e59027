"""What has become useless once kernels are gone: kernels that read dead channels, channels that nobody reads."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.coupling.network import Group, Network
from secateur.coupling.plan import Plan
from secateur.graph.operators import arguments
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.batch_norms import norm_behind
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand
from secateur.utils.dtypes import widest_type

Kernels = dict[str, Tensor]


def find_dead_kernels(network: Network, graph: ChannelGraph, kept: Kernels, variance: float) -> Kernels:
    """What stays of kernels once those that do nothing are gone as well; their constants go into those who read them.

    Args:
        network: the network, whose weights are changed to those of the kernels that are kept.
        graph: of its channels.
        kept: which kernels stay, by the name of the weight (channels, edges); of layers that aren't named, all.
        variance: channels whose batch norm has less are constants.

    Returns:
        Which kernels of every layer stay.
    """
    found = {_layer(b).weight: kept.get(_layer(b).weight, b.edges) & torch.isfinite(b.values) for b in graph.layers}
    _silence_constants(network, graph, found, variance)
    zero_kernels(network, graph, found)
    made = _live_channels(graph, found)
    found = _fold(network, graph, found, made)
    needed = used_channels(graph, found)
    found = {_layer(b).weight: found[_layer(b).weight] & needed[b.span][:, None] for b in graph.layers}
    return found


def zero_kernels(network: Network, graph: ChannelGraph, kept: Kernels) -> None:
    """Kernels that do not stay become zero."""
    with torch.no_grad():
        for block in graph.layers:
            weight = network.program.state(_layer(block).weight)
            mask = _layer(block).weight_of(block.over_entries(kept[_layer(block).weight]), weight)
            weight.mul_(mask.to(weight))


def plan_of(network: Network, graph: ChannelGraph, kept: Kernels) -> Plan:
    """The plan that cuts units whose channels have no kernels left and no readers; the fewest that must stay do."""
    alive = torch.zeros(network.units + 1, dtype=torch.bool)
    by_layers = set()
    for block in graph.layers:
        layer = _layer(block)
        by_layers.add(layer.weight)
        alive[layer.outputs[kept[layer.weight].any(1)]] = True
        read = block.over_entries(kept[layer.weight]).any(1).reshape(-1, layer.kernel).any(1)  # (inputs,)
        alive[layer.inputs[read]] = True
    stay = {group.name: _kept_units(network, group, alive, by_layers) for group in network.groups}
    share = sum(len(units) for units in stay.values()) / max(network.units, 1)
    return Plan(network, stay, {}, network.cost(stay), network.cost(), {"units": share})


def _kept_units(network: Network, group: Group, alive: Tensor, by_layers: set[str]) -> Tensor:
    """The units of a group that stay: all, where something else than layers makes them."""
    produced = {m.tensor for m in group.members if m.is_producer and network.program.state(m.tensor).dim() > 1}
    if not produced <= by_layers:
        return torch.arange(group.size)
    own = alive[group.span]
    count = max(int(own.sum()), group.fewest)
    count += -count % group.multiple
    order = own.long().argsort(descending=True, stable=True)
    return order[: min(count, group.size)].sort().values


def _layer(block: ChannelBlock) -> LinearLayer:
    assert block.layer is not None
    return block.layer


def _live_channels(graph: ChannelGraph, kept: Kernels) -> Tensor:
    """Channels that hold more than a constant: some kernel that stays reads one that does. (channels,)"""
    made = torch.ones(graph.size, dtype=torch.bool)
    for block in graph.blocks:
        from_ = made[block.sources]
        if block.layer is not None:
            made[block.span] = (from_ & kept[block.layer.weight]).any(1)
        else:
            made[block.span] = (from_ & (block.sources > 0)).any(1)
    return made


def used_channels(graph: ChannelGraph, kept: Kernels) -> Tensor:
    """Channels that something reads which is needed, by the kernels that are kept. (channels,)"""
    needed = torch.zeros(graph.size, dtype=torch.bool)
    needed[list(graph.needed)] = True
    for block in reversed(graph.blocks):
        reads = needed[block.span][:, None].expand(block.sources.shape)
        reads = reads & kept[block.layer.weight] if block.layer is not None else reads
        needed[block.sources[reads]] = True
    return needed


def _silence_constants(network: Network, graph: ChannelGraph, kept: Kernels, variance: float) -> None:
    """Channels that hardly vary lose their kernels, and their batch norm takes them for its mean."""
    for block in graph.layers:
        norm = norm_behind(_layer(block).node) if _layer(block).dim == 1 else None
        if norm is None:
            continue
        given, state = arguments(norm), network.program.state_names
        still = (network.program.state(state[given["running_var"]]) < variance).cpu()
        if not bool(still.any()):
            continue
        kept[_layer(block).weight][still] = False
        mean = network.program.state(state[given["running_mean"]])
        bias = arguments(_layer(block).node).get("bias")
        level = network.program.state(state[bias]).detach() if isinstance(bias, Node) else torch.zeros_like(mean)
        mean.data[still.to(mean.device)] = level[still.to(mean.device)]


def _fold(network: Network, graph: ChannelGraph, kept: Kernels, made: Tensor) -> Kernels:
    """Kernels that read constants go; what they make of them is added where the layer can take it, else they stay."""
    means = _means(network, graph)
    found = dict(kept)
    for block in graph.layers:
        layer = _layer(block)
        idle = kept[layer.weight] & ~made[block.sources]
        if not bool(idle.any()):
            continue
        weight = network.program.state(layer.weight).detach()
        matrix = layer.matrix(weight).double().cpu() * block.over_entries(idle)
        level = means[layer].view(layer.groups, -1).repeat_interleave(layer.kernel, 1)
        constant = torch.einsum("gof,gf->go", matrix, level).flatten() / layer.results_per_place
        if not layer.constant or layer.kind == "new":
            idle = idle & (constant == 0)[:, None]
        else:
            taker = network.program.state(layer.constant)
            taker.data.add_(constant.to(taker), alpha=1 if layer.kind == "bias" else -1)
        found[layer.weight] = kept[layer.weight] & ~idle
    zero_kernels(network, graph, found)
    return found


def _means(network: Network, graph: ChannelGraph) -> dict[LinearLayer, Tensor]:
    """The mean of each layer's input on the traced example. (inputs,)"""
    found: dict[LinearLayer, Tensor] = {}

    def watch(layer: LinearLayer) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = operand(layer, args, kwargs)
            others = [dim for dim in range(x.dim()) if dim != layer.dim % x.dim()]
            found[layer] = x.mean(others, dtype=widest_type(x)).cpu().double()
            return target(*args, **kwargs)

        return handler

    with torch.no_grad():
        network.program.forward(network.example, {_layer(b).node: watch(_layer(b)) for b in graph.layers})
    return found
