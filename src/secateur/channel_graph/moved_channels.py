"""Operators that only move entries, executed on channel numbers.

Numbers repeat over space, where they are expanded views of one entry. A move along such an axis leaves them unchanged,
so that no map is ever materialised.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from secateur.channel_graph.builder import ChannelGraphBuilder


def move_numbers(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Any:
    """Execute an operator on the numbers."""
    target: Any = node.target
    return target(**{name: value for name, value in args.items() if value is not None})


def flip_numbers(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Flip numbers; along axes over which they repeat a flip changes nothing."""
    numbers: Tensor = args["self"]
    return numbers.flip([dim for dim in args["dims"] if not _is_constant_along(numbers, dim)])


def reshape_numbers(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Reshape numbers to the shape in the program."""
    numbers: Tensor = args["self" if "self" in args else "input"]
    return numbers.reshape(builder.shapes[node])


def concatenate_numbers(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Concatenate numbers; axes over which all tensors repeat them remain expanded."""
    shape: torch.Size = builder.shapes[node]
    tensors: Sequence[Tensor] = args["tensors"]
    if any(tensor.dim() != len(shape) for tensor in tensors):
        return move_numbers(builder, node, args)  # type: ignore[no-any-return]
    dim = args.get("dim", 0) % len(shape)
    for axis in range(len(shape)):
        if axis != dim and all(_is_constant_along(tensor, axis) for tensor in tensors):
            tensors = [tensor.narrow(axis, 0, 1) for tensor in tensors]
    firsts = [tensor.narrow(dim, 0, 1) for tensor in tensors if tensor.shape[dim]]
    if all(_is_constant_along(tensor, dim) for tensor in tensors) and all(
        torch.equal(first, firsts[0]) for first in firsts
    ):
        return firsts[0].expand(shape)
    return torch.cat(list(tensors), dim).expand(shape)


def pad_numbers(builder: ChannelGraphBuilder, node: Node, args: Mapping[str, Any]) -> Tensor:
    """Pad numbers: the borders of a map belong to it; added channels are none, or copies."""
    numbers: Tensor = args["self" if "self" in args else "input"]
    shape: torch.Size = builder.shapes[node]
    amounts = list(args["pad" if "pad" in args else "padding"])
    axes = [numbers.dim() - 1 - number // 2 for number, amount in enumerate(amounts) if amount]
    across = [axis for axis in axes if not _is_constant_along(numbers, axis)]
    for axis in set(axes) - set(across):
        numbers = numbers.narrow(axis, 0, 1)
        first = 2 * (numbers.dim() - 1 - axis)
        amounts[first : first + 2] = [0, 0]
    if across:
        numbers = F.pad(numbers, amounts, args.get("mode") or "constant")
    return numbers.expand(shape)


def _is_constant_along(numbers: Tensor, dim: int) -> bool:
    """Return whether numbers are the same all along an axis."""
    if numbers.shape[dim] < 2 or numbers.stride(dim) == 0:
        return True
    return bool((numbers == numbers.narrow(dim, 0, 1)).all())
