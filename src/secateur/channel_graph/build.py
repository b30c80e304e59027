"""The graph of a network's channels: nodes are feature maps, edges are operators from one to another.

It is built by running the program on tensors of channel numbers. An operator that only moves entries (views,
concatenations, slices) is executed on the numbers themselves; where two maps are added a new channel gets an edge of
norm 1 from each; pooling is an edge that cannot be pruned; the factor of a batch norm belongs to the kernels before it.
Chains end at an operator without a rule, and new ones begin behind it; it is named in `breaks`.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.channel_graph.builder import ChannelGraphBuilder, is_tensor_shape
from secateur.channel_graph.graph import ChannelGraph
from secateur.channel_graph.moved_channels import (
    concatenate_numbers,
    flip_numbers,
    move_numbers,
    pad_numbers,
    reshape_numbers,
)
from secateur.channel_graph.op_rules import (
    averaged_norms,
    batch_norm_norms,
    join,
    linear_edges,
    pass_map,
    pooled_norms,
)
from secateur.coupling.network import Network
from secateur.coupling.rules.context import frozen
from secateur.coupling.rules.op_rule import ChannelFlow
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments

ChannelRule = Callable[[ChannelGraphBuilder, Node, Mapping[str, Any]], Any]
CHANNEL_RULES: Mapping[ChannelFlow, ChannelRule] = {
    "same": pass_map,
    "join": join,
    "batch norm": batch_norm_norms,
    "pooling": pooled_norms,
    "mean": averaged_norms,
    "sum": averaged_norms,
    "move": move_numbers,
    "flip": flip_numbers,
    "reshape": reshape_numbers,
    "concatenate": concatenate_numbers,
    "pad": pad_numbers,
}


def graph_of(network: Network) -> ChannelGraph:
    """Return the graph of a network's channels."""
    builder = ChannelGraphBuilder(network)
    program, values = network.program, dict[Node, Any]()
    for node in program.nodes[:-1]:
        if node.op == "placeholder":
            is_fixed = node in program.state_names or node in program.constants
            shapes = builder.shapes[node]
            values[node] = frozen(shapes) if is_fixed else builder.new_channels(shapes)
        elif node.op == "call_function":
            values[node] = _channels_of(builder, node, values)
    builder.mark_needed([values[node] for node in program.output_nodes])
    return builder.graph()


def _channels_of(builder: ChannelGraphBuilder, node: Node, values: Mapping[Node, Any]) -> Any:
    """Return the channel numbers of an operator's results."""
    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    shape = builder.shapes[node]
    if not any(is_tensor_shape(leaf) for leaf in pytree.tree_leaves(shape, is_leaf=is_tensor_shape)):
        return shape
    args = torch.fx.map_arg(arguments(node), values.get)
    flow = rule_of(node).channels
    rule = linear_edges if node in builder.layers else None if flow is None else CHANNEL_RULES[flow]
    if rule is None:
        return builder.end_chains(node, args)
    try:
        return rule(builder, node, args)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return builder.end_chains(node, args)
