"""Compact values of the cut network: activations that hold the kept positions alone, between layers.

Within the dense network's program values have the dense shapes. A layer computes what stays alone (`narrow.py`), but to
spread its result out, and to pick from it again in the next layer, takes longer than the layer. So where only operators
follow that treat each position along the axis alike and by itself, what lies between two layers holds what stays alone.
Which values may do so is known from the program. Whether one does is seen from its shape: a run may start from values
that are whole.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import functional_rule_of
from secateur.graph.operators import arguments, operator_name, recorded_shape
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.recovery.compact_layers import CompactLayer, select_positions, spread_out


@dataclass(frozen=True, eq=False)
class KeptPositions:
    """The kept positions along an axis of a value.

    Args:
        dim: the axis.
        positions: the kept ones.
        length: of the axis in the dense network.
    """

    dim: int
    positions: Tensor
    length: int

    def agrees(self, other: "KeptPositions") -> bool:
        """Return whether another value has the same kept positions."""
        return self.length == other.length and torch.equal(self.positions, other.positions)

    def is_whole(self, x: Tensor, dim: int) -> bool:
        """Return whether a tensor has all positions along an axis."""
        return x.shape[dim] == self.length

    def picked(self, x: Tensor, dim: int) -> Tensor:
        """Select the kept positions along one axis of a tensor, if it has all of them there."""
        return select_positions(x, dim, self.positions) if self.is_whole(x, dim) else x

    def spread(self, x: Tensor, dim: int) -> Tensor:
        """Expand a tensor to all positions along an axis, zero where nothing is kept."""
        return x if self.is_whole(x, dim) else spread_out(x, dim, self.positions, self.length)


Axes = Mapping[Node, KeptPositions]


def compact_axes(
    program: Program, compact_layers: Mapping[Node, CompactLayer], others: Collection[Node]
) -> tuple[Axes, Axes]:
    """Return the operators that can compute on kept positions alone, and those whose users all accept that.

    Args:
        program: the dense network's.
        compact_layers: the layers that compute what stays alone.
        others: operators that are replaced otherwise, which take and give whole values.
    """
    axes: dict[Node, KeptPositions] = {}
    for node in program.nodes:
        axis = None
        if node in compact_layers:
            axis = compact_layers[node].result_axis(KeptPositions)
        elif node.op == "call_function" and node not in others:
            axis = _axis_through(node, axes)
        if axis is not None:
            axes[node] = axis
    compact = {
        node: axis
        for node, axis in axes.items()
        if all(_accepts_compact(user, node, axis, axes, compact_layers) for user in node.users)
    }
    return axes, compact


def _accepts_compact(
    user: Node, node: Node, axis: KeptPositions, axes: Axes, compact_layers: Mapping[Node, CompactLayer]
) -> bool:
    """Return whether an operator accepts another's result with the kept positions alone."""
    if user in compact_layers:
        layer = compact_layers[user].layer
        is_input = arguments(user)[layer.argument] is node and user.all_input_nodes.count(node) == 1
        return is_input and layer.dim == axis.dim and torch.equal(compact_layers[user].inputs, axis.positions)
    return user in axes and axes[user].agrees(axis)


def compact_operator(node: Node, axis: KeptPositions, is_held: bool) -> OpOverride:
    """Return the override that computes on kept positions if its operand is compact."""
    dims = _operand_dims(node, axis)

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        by_key = _by_key(args, kwargs)
        tensors = {key: dim for key, dim in dims.items() if isinstance(by_key.get(key), Tensor)}
        if all(axis.is_whole(by_key[key], dim) for key, dim in tensors.items()):
            return target(*args, **kwargs)
        by_key |= {key: axis.picked(by_key[key], dim) for key, dim in tensors.items()}
        result = target(*[by_key[at] for at in range(len(args))], **{key: by_key[key] for key in kwargs})
        return result if is_held else axis.spread(result, axis.dim)

    return handler


def _by_key(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    arguments_by_key: dict[int | str, Any] = dict(enumerate(args))
    arguments_by_key.update(kwargs)
    return arguments_by_key


def _operand_dims(node: Node, axis: KeptPositions) -> dict[int | str, int]:
    """Map each operand that has the axis, by its position or name, to its dimension."""
    operands = _by_key(node.args, node.kwargs)
    if _is_pointwise(node):
        rank = len(recorded_shape(node))
        shapes = {key: recorded_shape(value) for key, value in operands.items() if isinstance(value, Node)}
        dims = {key: axis.dim - (rank - len(shape)) for key, shape in shapes.items()}
        return {key: dim for key, dim in dims.items() if dim >= 0 and shapes[key][dim] == axis.length}
    nodes = [key for key, value in operands.items() if isinstance(value, Node)]
    if functional_rule_of(node).norm == "batch":
        return {**dict.fromkeys(nodes, 0), 0: 1}
    return {0: axis.dim}


def _axis_through(node: Node, axes: Axes) -> KeptPositions | None:
    """Return the axis of an operator's result along which it can compute on kept positions, or None."""
    if _is_pointwise(node):
        return _pointwise_axis(node, axes)
    first = node.args[0] if node.args else None
    axis = axes.get(first) if isinstance(first, Node) else None
    keeps_apart = functional_rule_of(node).keeps_apart
    return axis if axis is not None and keeps_apart is not None and keeps_apart(node, axis.dim) else None


def _pointwise_axis(node: Node, axes: Axes) -> KeptPositions | None:
    operands = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, Node)]
    axes_of_operands = [axes[value] for value in operands if value in axes]
    if not axes_of_operands or any(value not in operands for value in node.all_input_nodes):
        return None
    axis, shape = axes_of_operands[0], recorded_shape(node)
    if operator_name(node).endswith("_") and node.args[0] not in axes:
        return None  # what it writes to would be a copy
    for value in operands:
        operand_shape = recorded_shape(value)
        dim = axis.dim - (len(shape) - len(operand_shape))
        if value in axes and not (axes[value].agrees(axis) and axes[value].dim == dim):
            return None
        if dim >= 0 and operand_shape[dim] not in (1, axis.length):
            return None
    return axis if len(shape) > axis.dim and shape[axis.dim] == axis.length else None


def _is_pointwise(node: Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and torch.Tag.pointwise in tags and functional_rule_of(node).keeps_apart is None
