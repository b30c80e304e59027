"""The edges and channel numbers that each kind of operator adds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.channel_graph.builder import NO_CHANNEL, ChannelGraphBuilder, is_tensor_shape, padded_rows
from secateur.channel_graph.op_norms import operator_norms
from secateur.coupling.labels import broadcast_labels
from secateur.coupling.rules.context import frozen
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.finite_weights import finite_weight
from secateur.masking.linear_layers import LinearLayer


def linear_edges(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Add one edge for each kernel of a linear layer or a convolution."""
    layer = builder.layers[node]
    numbers, shape = args[layer.argument], builder.shapes[node]
    weight = finite_weight(builder.program.state(layer.weight).detach(), layer.weight)
    inputs = builder.channels_along(node, numbers, layer.dim).view(layer.groups, -1)  # (groups, inputs)
    kernels = layer.matrix(weight).unflatten(2, (inputs.shape[1], -1))  # (groups, out, in, kernel)
    pairs = [torch.unique(row, return_inverse=True) for row in inputs]
    sources = padded_rows([channels for channels, _ in pairs])  # (groups, edges)
    columns = torch.stack([edges for _, edges in pairs])  # (groups, inputs)
    width = sources.shape[1]
    norms = _norms(builder, layer, kernels, weight)
    # The norm of a map that is read in several places is the root of the sum of its squares.
    squares = _sum_over_inputs(norms.square(), columns, width)
    channels = builder.add(
        node,
        sources.repeat_interleave(norms.shape[1], 0),
        squares.sqrt().log(),
        layer=layer,
        columns=columns.repeat_interleave(layer.kernel, 1),
        sums=_sum_over_inputs(kernels.double().cpu().abs().sum(3), columns, width),
    )
    return broadcast_labels(channels, 1 if layer.is_convolution else len(shape) - 1, shape)


def _sum_over_inputs(measure: Tensor, columns: Tensor, width: int) -> Tensor:
    """Sum a measure of each input (groups, outputs, inputs) over the inputs of one map (channels, edges)."""
    total = torch.zeros(*measure.shape[:2], width, dtype=torch.float64)
    return total.scatter_add_(2, columns[:, None].expand_as(measure), measure).flatten(0, 1)


def _norms(builder: ChannelGraphBuilder, layer: LinearLayer, kernels: Tensor, weight: Tensor) -> Tensor:
    """Return the norm of each kernel (groups, outputs, inputs)."""
    if not layer.is_convolution:
        lengths: Tensor = kernels.double().cpu().square().sum(3).sqrt()
        return lengths
    options = arguments(layer.node)
    size = layer.image(builder.shapes[options["input"]][2:])
    steps = [_per_axis(options[name], len(size)) for name in ("stride", "dilation")]
    flat = kernels.flatten(0, 1).unflatten(2, tuple(weight.shape[2:]))
    norms: Tensor = operator_norms(flat, size, *steps).view(kernels.shape[:3])
    return norms


def batch_norm_norms(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Add an edge of norm |gamma| / sqrt(variance + eps) for each channel; `batch_norm_edges` moves it into a layer."""
    options, state = arguments(node), builder.program.state_names
    variance = options["running_var"]
    if variance is None:
        raise ValueError("statistics of the batch")
    factor = (builder.program.state(state[variance]).double() + options["eps"]).rsqrt()
    if options.get("weight") is not None:
        factor = factor * builder.program.state(state[options["weight"]]).double()
    numbers = builder.channels_along(node, args["input"], 1)
    logs = factor.detach().abs().cpu().log()
    channels = builder.add(node, numbers[:, None], torch.where(numbers > 0, logs, 0.0)[:, None], begins=False)
    return broadcast_labels(torch.where(numbers > 0, channels, NO_CHANNEL), 1, builder.shapes[node])


def pooled_norms(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Any:
    """Add edges for pooling of any kind, as averaging, and for upsampling, as repetition."""
    numbers: Tensor = args["self" if "self" in args else "input"]
    shape = builder.shapes[node]
    map_shape = shape if is_tensor_shape(shape) else shape[0]
    sizes = list(zip(numbers.shape[2:], map_shape[2:], strict=True))  # before and after, along each axis
    options = arguments(node)
    if "kernel_size" in options:
        size = _per_axis(options["kernel_size"], len(sizes))
        stride = _per_axis(options["stride"] or options["kernel_size"], len(sizes))
        window = torch.full((1, 1, *size), 1 / math.prod(size))
        dilation = _per_axis(options.get("dilation", 1), len(sizes))
        factor = float(operator_norms(window, numbers.shape[2:], stride, dilation))
    else:
        factor = math.sqrt(math.prod(after / before for before, after in sizes))
    result = broadcast_labels(builder.scaled_map(node, builder.channels_along(node, numbers, 1), factor), 1, map_shape)
    return result if is_tensor_shape(shape) else (result, frozen(shape[1]))


def averaged_norms(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Add edges of norm 1 / sqrt(n) for a mean over n positions, and of sqrt(n) for a sum."""
    numbers: Tensor = args["self"]
    dims = args.get("dim")
    axes = range(numbers.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    window_numbers = numbers
    count = 1
    for axis in sorted(axis % numbers.dim() for axis in axes):
        if bool((numbers != numbers.narrow(axis, 0, 1)).any()):
            raise ValueError("channels are mixed")
        window_numbers, count = window_numbers.narrow(axis, 0, 1), count * numbers.shape[axis]
    factor = count**0.5 / (count if rule_of(node).channels == "mean" else 1)
    return builder.scaled_map(node, window_numbers, factor).reshape(builder.shapes[node])


def join(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Pass one map on; where several meet entry by entry, add a channel with an edge of norm 1 from each."""
    shape = builder.shapes[node]
    maps = [value for value in args.values() if isinstance(value, Tensor) and bool(value.any())]
    if not maps:
        return torch.zeros((), dtype=torch.long).expand(shape)
    result = maps[0].expand(shape)
    for other in maps[1:]:
        result = _joined_channels(builder, node, result, other.expand(shape)).expand(shape)
    return result


def _joined_channels(builder: ChannelGraphBuilder, node: Node, a: Tensor, b: Tensor) -> Tensor:
    for dim in range(a.dim()):
        if a.stride(dim) == 0 and b.stride(dim) == 0 and a.shape[dim] > 1:
            a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
    pairs, inverse = torch.unique(torch.stack([a.reshape(-1), b.reshape(-1)], 1), dim=0, return_inverse=True)
    is_single = (pairs == NO_CHANNEL).any(1) | (pairs[:, 0] == pairs[:, 1])
    channels = pairs.amax(1)
    distinct = pairs[~is_single]
    if len(distinct):
        channels[~is_single] = builder.add(node, distinct, torch.zeros(distinct.shape))
    numbers: Tensor = channels[inverse].view(a.shape)
    return numbers


def pass_map(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Pass the map of the first tensor on."""
    first_value: Tensor = next(value for value in args.values() if isinstance(value, Tensor))
    return first_value.expand(builder.shapes[node])


def _per_axis(value: Any, rank: int) -> list[int]:
    values: Sequence[int] = [value] if isinstance(value, int) else list(value)
    return list(values) * rank if len(values) == 1 else list(values)
