"""Axes of operators' first arguments along which they treat each position alike and by itself."""

import math
from typing import Any

from torch.fx import Node

from secateur.coupling.rules.op_rule import AxisTest
from secateur.graph.operators import arguments, recorded_shape


def any_axis(node: Node, dim: int) -> bool:
    """Return True: a copy treats each entry by itself."""
    return True


def no_axis(node: Node, dim: int) -> bool:
    """Return False: positions have weights of their own."""
    return False


def idle_dropout(node: Node, dim: int) -> bool:
    """Return whether a dropout does nothing."""
    return arguments(node).get("train") is False


def batch_norm_channels(node: Node, dim: int) -> bool:
    """Return whether an axis is that of the channels of a batch norm with running statistics."""
    return dim == 1 and arguments(node).get("training") is False


def is_unsliced(node: Node, dim: int) -> bool:
    """Return whether a slice leaves an axis as it is."""
    return bool(arguments(node)["dim"] % len(recorded_shape(node.args[0])) != dim)


def is_unpadded(node: Node, dim: int) -> bool:
    """Return whether a padding leaves an axis as it is."""
    return len(arguments(node)["pad"]) // 2 < len(recorded_shape(node.args[0])) - dim


def is_unreduced(node: Node, dim: int) -> bool:
    """Return whether a reduction is over axes behind an axis alone."""
    dims: Any = arguments(node).get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    return (
        isinstance(dims, list | tuple)
        and len(dims) > 0
        and all(axis % len(recorded_shape(node.args[0])) > dim for axis in dims)
    )


def is_unflattened(node: Node, dim: int) -> bool:
    """Return whether a flattening joins axes behind an axis alone, or the axis with axes of length 1."""
    shape, options = recorded_shape(node.args[0]), arguments(node)
    start, end = (options[name] % len(shape) for name in ("start_dim", "end_dim"))
    lengths = shape[dim + 1 : end + 1]
    is_single = start == dim and all(isinstance(length, int) for length in lengths) and math.prod(lengths) == 1
    return start > dim or is_single


def pooled_channels(axes: int) -> AxisTest:
    """Return the test of a pooling over a number of axes: the axis of the channels is the one before them."""

    def is_channels(node: Node, dim: int) -> bool:
        return dim == len(recorded_shape(node.args[0])) - axes - 1

    return is_channels
