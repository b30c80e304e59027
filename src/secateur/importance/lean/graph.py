"""The graph of a network's channels: nodes are feature maps, edges are operators from one to another.

It is built by running the program on tensors of node numbers. Whatever only moves entries (views, concatenations,
slices) is executed on the numbers themselves; where two maps meet (a skip) a new node gets an edge of value 1 from
each; batch norms and pooling are edges that can't be pruned. An operator without a rule here ends the chains that come
to it, and new ones start behind it; it is named in `breaks`.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.importance.lean.norms import operator_norms
from secateur.network import elementwise, movements, reductions
from secateur.network.call import frozen
from secateur.network.labels import compact, operator_name, spread
from secateur.network.layers import Layer, layers_of
from secateur.network.program import arguments, module_path
from secateur.network.rules import Rule, rule_for
from secateur.network.trace import results_of
from secateur.network.units import Network

NOWHERE = 0


@dataclass(frozen=True, eq=False)
class Block:
    """Edges into the channels that one operator makes.

    Args:
        first: the number of the first of these channels; the others follow.
        sources: for each of them the channels that edges come from, 0 for none (channels, edges).
        values: the logarithm of each edge's norm, -inf where there is no edge (channels, edges).
        operator: the name of that operator.
        layer: whose kernels the edges are, None where they can't be pruned.
        columns: of a layer's matrix, for each group's features the edge that they belong to (groups, features).
        sums: of the absolute weights of each kernel (channels, edges).
    """

    first: int
    sources: Tensor
    values: Tensor
    operator: str
    layer: Layer | None = None
    columns: Tensor | None = None
    sums: Tensor | None = None

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.sources))

    @property
    def edges(self) -> Tensor:
        """Which entries of a layer's `values` are kernels: all but those that fill up shorter rows."""
        assert self.layer is not None and self.columns is not None
        counts = self.columns.amax(1) + 1  # (groups,)
        of_row = counts.repeat_interleave(len(self.sources) // len(counts))
        return torch.arange(self.values.shape[1]) < of_row[:, None]

    def over_entries(self, kernels: Tensor) -> Tensor:
        """Something of each kernel (channels, edges), for each entry of the layer's matrix."""
        assert self.columns is not None
        rows = kernels.unflatten(0, (len(self.columns), -1))  # (groups, outputs, edges)
        entries: Tensor = rows.gather(2, self.columns[:, None].expand(-1, rows.shape[1], -1))
        return entries


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """All channels of a network and what leads from one to another.

    Args:
        blocks: in the order in which they run; edges come from channels of blocks before.
        size: how many numbers of channels there are, 0 being none.
        needed: channels that the network returns, or that go where chains were not followed.
        breaks: operators through which chains were not followed, with their modules.
    """

    blocks: tuple[Block, ...]
    size: int
    needed: frozenset[int]
    breaks: tuple[str, ...]

    @property
    def layers(self) -> tuple[Block, ...]:
        """The blocks whose edges are kernels."""
        return tuple(block for block in self.blocks if block.layer is not None)


class Walk:
    """A walk through the program on numbers of channels."""

    def __init__(self, network: Network) -> None:
        self.network, self.program = network, network.program
        self.shapes = results_of(network.program, network.example).shapes
        self.layers = {layer.node: layer for layer in layers_of(network)}
        self.blocks: list[Block] = []
        self.breaks: list[str] = []
        self.needed: set[int] = set()
        self.size = 1

    def graph(self) -> ChannelGraph:
        """The graph."""
        values: dict[Node, Any] = {}
        for node in self.program.nodes[:-1]:
            if node.op == "placeholder":
                fixed = node in self.program.state_names or node in self.program.constants
                values[node] = frozen(self.shapes[node]) if fixed else pytree.tree_map(
                    self.fresh, self.shapes[node], is_leaf=_is_shape
                )  # fmt: skip
            elif node.op == "call_function":
                values[node] = self._step(node, values)
        self.needed |= _own([values[node] for node in self.program.output_nodes])
        return ChannelGraph(tuple(self.blocks), self.size, frozenset(self.needed), tuple(dict.fromkeys(self.breaks)))

    def _step(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if node.target is operator.getitem:
            return values[node.args[0]][node.args[1]]  # type: ignore[index]
        shape = self.shapes[node]
        if not any(_is_shape(leaf) for leaf in pytree.tree_leaves(shape, is_leaf=_is_shape)):
            return shape
        given = torch.fx.map_arg(arguments(node), values.get)
        rule = FOLLOWED.get(rule_for(node))
        rule = read if node in self.layers else rule
        if rule is None:
            return self.unknown(node, given)
        try:
            return rule(self, node, given)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return self.unknown(node, given)

    def unknown(self, node: Node, given: Mapping[str, Any]) -> Any:
        """Chains end here, and others start behind it."""
        shape = self.shapes[node]
        own = _own(given)
        if not own:
            return frozen(shape)
        self.needed |= own
        self.breaks.append(f"{operator_name(node)} in {module_path(node) or 'the model itself'}")
        return pytree.tree_map(lambda leaf: self.fresh(leaf) if _is_shape(leaf) else leaf, shape, is_leaf=_is_shape)

    def fresh(self, shape: Any) -> Any:
        """Channels that nothing leads to: along the second axis, or the only one."""
        if not _is_shape(shape) or not shape:
            return frozen(shape)
        dim = 1 if len(shape) > 1 else 0
        first = self.size
        self.size += shape[dim]
        return spread(torch.arange(first, self.size), dim, shape)

    def add(self, node: Node, sources: Tensor, values: Tensor, **of_layer: Any) -> Tensor:
        """New channels with edges to them; their numbers."""
        self.blocks.append(Block(self.size, sources, values.double(), operator_name(node), **of_layer))
        self.size += len(sources)
        return torch.arange(self.size - len(sources), self.size)

    def scaled(self, node: Node, numbers: Tensor, factor: float) -> Tensor:
        """The same map with an edge of its own behind each channel, which can't be pruned."""
        own, place = torch.unique(compact(numbers), return_inverse=True)
        made = self.add(node, own[:, None], torch.where(own > 0, math.log(factor), 0.0)[:, None])
        return torch.where(own > 0, made, NOWHERE)[place].expand(numbers.shape)


def graph_of(network: Network) -> ChannelGraph:
    """The graph of a network's channels."""
    return Walk(network).graph()


def read(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
    """A linear layer or a convolution: one edge for each kernel."""
    layer = walk.layers[node]
    numbers, shape = given[layer.argument], walk.shapes[node]
    weight = walk.program.state(layer.weight)
    inputs = _along(numbers, layer.dim).view(layer.groups, -1)  # (groups, inputs)
    kernels = layer.matrix(weight.detach()).unflatten(2, (inputs.shape[1], -1))  # (groups, out, in, kernel)
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
    return spread(made, 1 if layer.is_convolution else len(shape) - 1, shape)


def _summed(measure: Tensor, columns: Tensor, width: int) -> Tensor:
    """Something of each input (groups, outputs, inputs), summed over those of one map. (channels, edges)"""
    total = torch.zeros(*measure.shape[:2], width, dtype=torch.float64)
    return total.scatter_add_(2, columns[:, None].expand_as(measure), measure).flatten(0, 1)


def _norms(walk: Walk, layer: Layer, kernels: Tensor, weight: Tensor) -> Tensor:
    """The norm of each kernel. (groups, outputs, inputs)"""
    if not layer.is_convolution:
        lengths: Tensor = kernels.double().cpu().square().sum(3).sqrt()
        return lengths
    options = arguments(layer.node)
    size = walk.shapes[options["input"]][2:]
    steps = [_each(options[name], len(size)) for name in ("stride", "dilation")]
    flat = kernels.flatten(0, 1).unflatten(2, tuple(weight.shape[2:]))
    norms: Tensor = operator_norms(flat, size, *steps).view(kernels.shape[:3])
    return norms


def batch_norm(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
    """|gamma| / sqrt(variance + eps) for each channel."""
    options, state = arguments(node), walk.program.state_names
    variance = options["running_var"]
    if variance is None:
        raise ValueError("statistics of the batch")
    factor = (walk.program.state(state[variance]).double() + options["eps"]).rsqrt()
    if options.get("weight") is not None:
        factor = factor * walk.program.state(state[options["weight"]]).double()
    numbers = _along(given["input"], 1)
    logs = factor.detach().abs().cpu().log()
    made = walk.add(node, numbers[:, None], torch.where(numbers > 0, logs, 0.0)[:, None])
    return spread(torch.where(numbers > 0, made, NOWHERE), 1, walk.shapes[node])


def pooled(walk: Walk, node: Node, given: Mapping[str, Any]) -> Any:
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
    made = walk.scaled(node, numbers.narrow(2, 0, 1).flatten(2)[:, :, :1].flatten(1), factor)
    result = made.view(*made.shape, *(1 for _ in places)).expand(wanted)
    return result if _is_shape(shape) else (result, frozen(shape[1]))


def averaged(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
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
    factor = count**0.5 / (count if operator_name(node) == "mean" else 1)
    return walk.scaled(node, narrow, factor).reshape(walk.shapes[node])


def moved(walk: Walk, node: Node, given: Mapping[str, Any]) -> Any:
    """What only moves entries is executed on the numbers."""
    target: Any = node.target
    return target(**_by_name(given))


def reshaped(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
    numbers: Tensor = given["self" if "self" in given else "input"]
    return numbers.reshape(walk.shapes[node])


def met(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
    """Entry by entry: one map goes on; where two meet, an edge of value 1 from each leads to a new one."""
    shape = walk.shapes[node]
    maps = [value for value in given.values() if isinstance(value, Tensor) and bool(value.any())]
    if not maps:
        return torch.zeros((), dtype=torch.long).expand(shape)
    result = maps[0].expand(shape)
    for other in maps[1:]:
        result = _joined(walk, node, result, other.expand(shape)).expand(shape)
    return result


def _joined(walk: Walk, node: Node, a: Tensor, b: Tensor) -> Tensor:
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


def same(walk: Walk, node: Node, given: Mapping[str, Any]) -> Tensor:
    first: Tensor = next(value for value in given.values() if isinstance(value, Tensor))
    return first.expand(walk.shapes[node])


Follow = Callable[[Walk, Node, Mapping[str, Any]], Any]
FOLLOWED: dict[Rule, Follow] = {
    reductions.batch_norm: batch_norm,
    reductions.spatial: pooled,
    reductions.summation: averaged,
    reductions.softmax: same,
    elementwise.elementwise: met,
    elementwise.prelu: same,
    elementwise.dropout: same,
    elementwise.passing: same,
    movements.reshape: reshaped,
    movements.expand: moved,
    movements.move: moved,
    movements.select: moved,
    movements.parts: moved,
    movements.slice_: moved,
    movements.concatenate: moved,
    movements.pad: moved,
    movements.repeat: moved,
    movements.fixed_positions: moved,
    movements.pixel_shuffle: moved,
    movements.channel_shuffle: moved,
}


def _by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _along(numbers: Tensor, dim: int) -> Tensor:
    """One channel for each index along an axis, 0 where there are several. (size of dim,)"""
    rows = compact(numbers, keep=dim).movedim(dim, 0).reshape(numbers.shape[dim], -1)
    alike = (rows == rows[:, :1]).all(1)
    return torch.where(alike, rows[:, 0], NOWHERE)


def _own(values: Any) -> set[int]:
    """The channels in some tensors of numbers."""
    held = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    return {int(number) for tensor in held for number in torch.unique(compact(tensor))} - {NOWHERE}


def _each(value: Any, rank: int) -> list[int]:
    values: Sequence[int] = [value] if isinstance(value, int) else list(value)
    return list(values) * rank if len(values) == 1 else list(values)


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)
