"""How numbers of channels pass each kind of operator."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.channel_graph.op_norms import operator_norms
from secateur.coupling.labels import broadcast_labels, squeeze_expanded
from secateur.coupling.rules.context import frozen
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer, identity_weight

if TYPE_CHECKING:
    from secateur.channel_graph.build import Walk

NOWHERE = 0


def linear_edges(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """A linear layer or a convolution: one edge for each kernel."""
    layer = walk.layers[node]
    numbers, shape = given[layer.argument], walk.shapes[node]
    weight = identity_weight(walk.program.state(layer.weight).detach(), layer.weight)
    inputs = channels_along(walk, node, numbers, layer.dim).view(layer.groups, -1)  # (groups, inputs)
    kernels = layer.matrix(weight).unflatten(2, (inputs.shape[1], -1))  # (groups, out, in, kernel)
    pairs = [torch.unique(row, return_inverse=True) for row in inputs]
    sources = torch.zeros(layer.groups, max(len(own) for own, _ in pairs), dtype=torch.long)
    for row, (own, _) in zip(sources, pairs, strict=True):
        row[: len(own)] = own
    columns = torch.stack([place for _, place in pairs])  # (groups, inputs)
    width = sources.shape[1]
    norms = _norms(walk, layer, kernels, weight)
    squares = _summed(norms.square(), columns, width)  # one map read in several places: the root of their squares
    made = walk.add(
        node,
        sources.repeat_interleave(norms.shape[1], 0),
        squares.sqrt().log(),
        layer=layer,
        columns=columns.repeat_interleave(layer.kernel, 1),
        sums=_summed(kernels.double().cpu().abs().sum(3), columns, width),
    )
    return broadcast_labels(made, 1 if layer.is_convolution else len(shape) - 1, shape)


def _summed(measure: Tensor, columns: Tensor, width: int) -> Tensor:
    """Something of each input (groups, outputs, inputs), summed over those of one map. (channels, edges)"""
    total = torch.zeros(*measure.shape[:2], width, dtype=torch.float64)
    return total.scatter_add_(2, columns[:, None].expand_as(measure), measure).flatten(0, 1)


def _norms(walk: "Walk", layer: LinearLayer, kernels: Tensor, weight: Tensor) -> Tensor:
    """The norm of each kernel. (groups, outputs, inputs)"""
    if not layer.is_convolution:
        lengths: Tensor = kernels.double().cpu().square().sum(3).sqrt()
        return lengths
    options = arguments(layer.node)
    size = layer.image(walk.shapes[options["input"]][2:])
    steps = [_each(options[name], len(size)) for name in ("stride", "dilation")]
    flat = kernels.flatten(0, 1).unflatten(2, tuple(weight.shape[2:]))
    norms: Tensor = operator_norms(flat, size, *steps).view(kernels.shape[:3])
    return norms


def batch_norm_norms(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """|gamma| / sqrt(variance + eps) for each channel; see `norm_edges` for whose edges it belongs to."""
    options, state = arguments(node), walk.program.state_names
    variance = options["running_var"]
    if variance is None:
        raise ValueError("statistics of the batch")
    factor = (walk.program.state(state[variance]).double() + options["eps"]).rsqrt()
    if options.get("weight") is not None:
        factor = factor * walk.program.state(state[options["weight"]]).double()
    numbers = channels_along(walk, node, given["input"], 1)
    logs = factor.detach().abs().cpu().log()
    made = walk.add(node, numbers[:, None], torch.where(numbers > 0, logs, 0.0)[:, None], begins=False)
    return broadcast_labels(torch.where(numbers > 0, made, NOWHERE), 1, walk.shapes[node])


def pooled_norms(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Any:
    """Pooling of any kind as averaging; what enlarges a map as the repetition that it is."""
    numbers: Tensor = given["self" if "self" in given else "input"]
    shape = walk.shapes[node]
    wanted = shape if _is_shape(shape) else shape[0]
    places = [(before, after) for before, after in zip(numbers.shape[2:], wanted[2:], strict=True)]
    options = arguments(node)
    if "kernel_size" in options:
        size = _each(options["kernel_size"], len(places))
        stride = _each(options["stride"] or options["kernel_size"], len(places))
        window = torch.full((1, 1, *size), 1 / math.prod(size))
        dilation = _each(options.get("dilation", 1), len(places))
        factor = float(operator_norms(window, numbers.shape[2:], stride, dilation))
    else:
        factor = math.sqrt(math.prod(after / before for before, after in places))
    result = broadcast_labels(walk.scaled(node, channels_along(walk, node, numbers, 1), factor), 1, wanted)
    return result if _is_shape(shape) else (result, frozen(shape[1]))


def averaged_norms(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """A mean over other axes than the channels': 1 / sqrt(n) for n places; a sum the root of n."""
    numbers: Tensor = given["self"]
    dims = given.get("dim")
    axes = range(numbers.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    narrow = numbers
    count = 1
    for axis in sorted(axis % numbers.dim() for axis in axes):
        if bool((numbers != numbers.narrow(axis, 0, 1)).any()):
            raise ValueError("channels are mixed")
        narrow, count = narrow.narrow(axis, 0, 1), count * numbers.shape[axis]
    factor = count**0.5 / (count if rule_of(node).channels == "mean" else 1)
    return walk.scaled(node, narrow, factor).reshape(walk.shapes[node])


def join(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """Entry by entry: one map goes on; where two meet, an edge of value 1 from each leads to a new one."""
    shape = walk.shapes[node]
    maps = [value for value in given.values() if isinstance(value, Tensor) and bool(value.any())]
    if not maps:
        return torch.zeros((), dtype=torch.long).expand(shape)
    result = maps[0].expand(shape)
    for other in maps[1:]:
        result = _joined(walk, node, result, other.expand(shape)).expand(shape)
    return result


def _joined(walk: "Walk", node: Node, a: Tensor, b: Tensor) -> Tensor:
    for dim in range(a.dim()):
        if a.stride(dim) == 0 and b.stride(dim) == 0 and a.shape[dim] > 1:
            a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
    pairs, place = torch.unique(torch.stack([a.reshape(-1), b.reshape(-1)], 1), dim=0, return_inverse=True)
    alone = (pairs == 0).any(1) | (pairs[:, 0] == pairs[:, 1])
    result = pairs.amax(1)
    both = pairs[~alone]
    if len(both):
        result[~alone] = walk.add(node, both, torch.zeros(both.shape))
    numbers: Tensor = result[place].view(a.shape)
    return numbers


def same(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    first: Tensor = next(value for value in given.values() if isinstance(value, Tensor))
    return first.expand(walk.shapes[node])


def channels_along(walk: "Walk", node: Node, numbers: Tensor, dim: int) -> Tensor:
    """One channel for each index along an axis. (size of dim,)

    A map that is laid together from several (as by a pixel shuffle) is a channel of its own, to which an edge of value
    1 leads from each of them.
    """
    rows = squeeze_expanded(numbers, keep=dim).movedim(dim, 0).reshape(numbers.shape[dim], -1)
    found = rows[:, 0].clone()
    mixed = torch.nonzero((rows != rows[:, :1]).any(1)).flatten()
    if not len(mixed):
        return found
    parts = [own[own > NOWHERE] for own in (torch.unique(row) for row in rows[mixed])]
    sources = torch.zeros(len(parts), max(len(own) for own in parts), dtype=torch.long)
    for row, own in zip(sources, parts, strict=True):
        row[: len(own)] = own
    found[mixed] = walk.add(node, sources, torch.where(sources > NOWHERE, 0.0, -torch.inf))
    return found


def _each(value: Any, rank: int) -> list[int]:
    values: Sequence[int] = [value] if isinstance(value, int) else list(value)
    return list(values) * rank if len(values) == 1 else list(values)


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)
