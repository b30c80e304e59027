"""Values of the cut network that hold what stays alone, on their way from one layer to the next.

Within the dense network's program values have the dense shapes. A layer computes what stays alone (`narrow.py`), but to
spread its result out, and to pick from it again in the next layer, takes longer than the layer. So where only operators
follow that treat each position along the axis alike and by itself, what lies between two layers holds what stays alone.
Which values may do so is known from the program. Whether one does is seen from its shape: a run may start from values
that are whole.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.operators import arguments, operator_name
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.recovery.compact_layers import CompactLayer, select_positions, spread_out


@dataclass(frozen=True, eq=False)
class KeptPositions:
    """Which positions along an axis of a value stay.

    Args:
        dim: the axis.
        positions: those that stay.
        length: of the axis in the dense network.
    """

    dim: int
    positions: Tensor
    length: int

    def agrees(self, other: "KeptPositions") -> bool:
        """Whether the same stays of another value."""
        return self.length == other.length and torch.equal(self.positions, other.positions)

    def is_whole(self, x: Tensor, dim: int) -> bool:
        """Whether a tensor has all positions along an axis."""
        return x.shape[dim] == self.length

    def picked(self, x: Tensor, dim: int) -> Tensor:
        """What stays of a tensor along one of its axes, if it has all positions there."""
        return select_positions(x, dim, self.positions) if self.is_whole(x, dim) else x

    def spread(self, x: Tensor, dim: int) -> Tensor:
        """The tensor with all positions along an axis, zero where nothing stays."""
        return x if self.is_whole(x, dim) else spread_out(x, dim, self.positions, self.length)


Axes = Mapping[Node, KeptPositions]


def compact_axes(program: Program, narrow: Mapping[Node, CompactLayer], others: Collection[Node]) -> tuple[Axes, Axes]:
    """The operators that can compute what stays alone, and those of them whose users all take it so.

    Args:
        program: the dense network's.
        narrow: the layers that compute what stays alone.
        others: operators that are replaced otherwise, which take and give whole values.
    """
    axes: dict[Node, KeptPositions] = {}
    for node in program.nodes:
        axis = None
        if node in narrow:
            axis = narrow[node].result_axis(KeptPositions)
        elif node.op == "call_function" and node not in others:
            axis = _axis_through(node, axes)
        if axis is not None:
            axes[node] = axis
    held = {
        node: axis for node, axis in axes.items() if all(_takes(user, node, axis, axes, narrow) for user in node.users)
    }
    return axes, held


def _takes(user: Node, node: Node, axis: KeptPositions, axes: Axes, narrow: Mapping[Node, CompactLayer]) -> bool:
    """Whether an operator takes what stays of another's result alone."""
    if user in narrow:
        layer = narrow[user].layer
        is_input = arguments(user)[layer.argument] is node and user.all_input_nodes.count(node) == 1
        return is_input and layer.dim == axis.dim and torch.equal(narrow[user].inputs, axis.positions)
    return user in axes and axes[user].agrees(axis)


def compact_operator(node: Node, axis: KeptPositions, is_held: bool) -> OpOverride:
    """An operator that computes what stays alone if it gets that; its result is spread out unless it may be held so."""
    dims = _operand_dims(node, axis)

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _by_key(args, kwargs)
        tensors = {key: dim for key, dim in dims.items() if isinstance(given.get(key), Tensor)}
        if all(axis.is_whole(given[key], dim) for key, dim in tensors.items()):
            return target(*args, **kwargs)
        given |= {key: axis.picked(given[key], dim) for key, dim in tensors.items()}
        result = target(*[given[at] for at in range(len(args))], **{key: given[key] for key in kwargs})
        return result if is_held else axis.spread(result, axis.dim)

    return handler


def _by_key(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    given: dict[int | str, Any] = dict(enumerate(args))
    given.update(kwargs)
    return given


def _operand_dims(node: Node, axis: KeptPositions) -> dict[int | str, int]:
    """Of each operand that has the axis, by its place or name, which of its axes that is."""
    whole = _by_key(node.args, node.kwargs)
    if _is_pointwise(node):
        rank = len(_shape(node))
        shapes = {key: _shape(value) for key, value in whole.items() if isinstance(value, Node)}
        dims = {key: axis.dim - (rank - len(shape)) for key, shape in shapes.items()}
        return {key: dim for key, dim in dims.items() if dim >= 0 and shapes[key][dim] == axis.length}
    nodes = [key for key, value in whole.items() if isinstance(value, Node)]
    if _name(node) == "batch_norm":
        return {**dict.fromkeys(nodes, 0), 0: 1}
    return {0: axis.dim}


def _axis_through(node: Node, axes: Axes) -> KeptPositions | None:
    """The axis of an operator's result along which it can compute what stays alone, or None."""
    if _is_pointwise(node):
        return _pointwise_axis(node, axes)
    first = node.args[0] if node.args else None
    axis = axes.get(first) if isinstance(first, Node) else None
    rule = THROUGH.get(_name(node))
    return axis if axis is not None and rule is not None and rule(node, axis) else None


def _pointwise_axis(node: Node, axes: Axes) -> KeptPositions | None:
    operands = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, Node)]
    found = [axes[value] for value in operands if value in axes]
    if not found or any(value not in operands for value in node.all_input_nodes):
        return None
    axis, shape = found[0], _shape(node)
    if operator_name(node).endswith("_") and node.args[0] not in axes:
        return None  # what it writes to would be a copy
    for value in operands:
        own = _shape(value)
        dim = axis.dim - (len(shape) - len(own))
        if value in axes and not (axes[value].agrees(axis) and axes[value].dim == dim):
            return None
        if dim >= 0 and own[dim] not in (1, axis.length):
            return None
    return axis if len(shape) > axis.dim and shape[axis.dim] == axis.length else None


def _is_pointwise(node: Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and torch.Tag.pointwise in tags and _name(node) not in ("prelu", "batch_norm")


def _name(node: Node) -> str:
    return operator_name(node).removesuffix("_")


def _shape(node: Node) -> tuple[Any, ...]:
    """As the export recorded it; empty for what is no tensor."""
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _behind(dims: Any, rank: int, axis: KeptPositions) -> bool:
    """Whether axes all lie behind the one along which something stays."""
    listed = [dims] if isinstance(dims, int) else dims
    return isinstance(listed, list | tuple) and all(dim % rank > axis.dim for dim in listed) and len(listed) > 0


def _input_rank(node: Node) -> int:
    (first, *_) = node.args
    assert isinstance(first, Node)
    return len(_shape(first))


def _flattens_behind(node: Node, axis: KeptPositions) -> bool:
    """Axes behind alone, or the axis together with axes of length 1."""
    (first, *_) = node.args
    assert isinstance(first, Node)
    shape, given = _shape(first), arguments(node)
    start, end = (given[name] % len(shape) for name in ("start_dim", "end_dim"))
    lengths = shape[axis.dim + 1 : end + 1]
    is_single = start == axis.dim and all(isinstance(each, int) for each in lengths) and math.prod(lengths) == 1
    return start > axis.dim or is_single


def _is_channels(places: int, node: Node, axis: KeptPositions) -> bool:
    return axis.dim == _input_rank(node) - places - 1


POOLS = ("max", "avg", "adaptive_avg")
# operators along whose other axes alone they mix, or which do nothing in evaluation mode
THROUGH: Mapping[str, Callable[[Node, KeptPositions], bool]] = {
    "batch_norm": lambda node, axis: axis.dim == 1 and arguments(node).get("training") is False,
    "dropout": lambda node, axis: arguments(node).get("train") is False,
    "contiguous": lambda node, axis: True,
    "slice": lambda node, axis: arguments(node)["dim"] % _input_rank(node) != axis.dim,
    "pad": lambda node, axis: len(arguments(node)["pad"]) // 2 < _input_rank(node) - axis.dim,
    "mean": lambda node, axis: _behind(arguments(node).get("dim"), _input_rank(node), axis),
    "flatten": _flattens_behind,
    **{f"{kind}_pool{places}d": partial(_is_channels, places) for kind in POOLS for places in (1, 2, 3)},
}
