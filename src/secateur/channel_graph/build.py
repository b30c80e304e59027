"""The graph of a network's channels: nodes are feature maps, edges are operators from one to another.

It is built by running the program on tensors of node numbers. Whatever only moves entries (views, concatenations,
slices) is executed on the numbers themselves; where two maps meet (a skip) a new node gets an edge of value 1 from
each; pooling is an edge that can't be pruned; the factor of a batch norm belongs to the kernels before it. An operator
without a rule here ends the chains that come to it, and new ones start behind it; it is named in `breaks`.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.channel_graph.batch_norm_edges import with_norms_in_layers
from secateur.channel_graph.graph import ChannelBlock, ChannelGraph
from secateur.channel_graph.moved_channels import concatenated, flipped, moved, padded, reshaped
from secateur.channel_graph.op_rules import (
    NOWHERE,
    averaged_norms,
    batch_norm_norms,
    join,
    linear_edges,
    pooled_norms,
    same,
)
from secateur.coupling.labels import broadcast_labels, squeeze_expanded
from secateur.coupling.network import Network
from secateur.coupling.operator_results import results_of
from secateur.coupling.rules.context import frozen
from secateur.coupling.rules.op_rule import ChannelFlow
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments, module_path, operator_name
from secateur.masking.linear_layers import layers_of
from secateur.masking.transposed_layers import transposed_layers_of


class Walk:
    """A walk through the program on numbers of channels."""

    def __init__(self, network: Network) -> None:
        self.network, self.program = network, network.program
        self.shapes = results_of(network.program, network.example).shapes
        self.layers = {layer.node: layer for layer in (*layers_of(network), *transposed_layers_of(network))}
        self.blocks: list[ChannelBlock] = []
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
        blocks = with_norms_in_layers(self.blocks, self.size, self.needed)
        return ChannelGraph(blocks, self.size, frozenset(self.needed), tuple(dict.fromkeys(self.breaks)))

    def _step(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if node.target is operator.getitem:
            return values[node.args[0]][node.args[1]]  # type: ignore[index]
        shape = self.shapes[node]
        if not any(_is_shape(leaf) for leaf in pytree.tree_leaves(shape, is_leaf=_is_shape)):
            return shape
        given = torch.fx.map_arg(arguments(node), values.get)
        flow = rule_of(node).channels
        rule = linear_edges if node in self.layers else None if flow is None else CHANNEL_RULES[flow]
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
        return broadcast_labels(torch.arange(first, self.size), dim, shape)

    def add(self, node: Node, sources: Tensor, values: Tensor, **options: Any) -> Tensor:
        """New channels with edges to them, `options` being other fields of the block; their numbers."""
        self.blocks.append(ChannelBlock(self.size, sources, values.double(), operator_name(node), **options))
        self.size += len(sources)
        return torch.arange(self.size - len(sources), self.size)

    def scaled(self, node: Node, numbers: Tensor, factor: float) -> Tensor:
        """The same map with an edge of its own behind each channel, which can't be pruned."""
        own, place = torch.unique(squeeze_expanded(numbers), return_inverse=True)
        made = self.add(node, own[:, None], torch.where(own > 0, math.log(factor), 0.0)[:, None])
        return torch.where(own > 0, made, NOWHERE)[place].expand(numbers.shape)


def graph_of(network: Network) -> ChannelGraph:
    """The graph of a network's channels."""
    return Walk(network).graph()


Follow = Callable[[Walk, Node, Mapping[str, Any]], Any]
CHANNEL_RULES: Mapping[ChannelFlow, Follow] = {
    "same": same,
    "join": join,
    "batch norm": batch_norm_norms,
    "pooling": pooled_norms,
    "mean": averaged_norms,
    "sum": averaged_norms,
    "move": moved,
    "flip": flipped,
    "reshape": reshaped,
    "concatenate": concatenated,
    "pad": padded,
}


def _own(values: Any) -> set[int]:
    """The channels in some tensors of numbers."""
    held = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    return {int(number) for tensor in held for number in torch.unique(squeeze_expanded(tensor))} - {NOWHERE}


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)
