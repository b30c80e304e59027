"""How numbers of channels pass what only moves entries: it is executed on the numbers.

Numbers repeat over space, where they are expanded views of one entry. What moves entries along such an axis leaves them
as they are, so that no map is ever written out.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

if TYPE_CHECKING:
    from secateur.channel_graph.build import Walk


def moved(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Any:
    """What only moves entries is executed on the numbers."""
    target: Any = node.target
    return target(**{name: value for name, value in given.items() if value is not None})


def flipped(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """Flip numbers; along axes over which they repeat a flip changes nothing."""
    numbers: Tensor = given["self"]
    return numbers.flip([dim for dim in given["dims"] if not _repeats(numbers, dim)])


def reshaped(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """Views and the like, to the shape that the program gave."""
    numbers: Tensor = given["self" if "self" in given else "input"]
    return numbers.reshape(walk.shapes[node])


def concatenated(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """Axes over which all tensors repeat their numbers stay expanded."""
    shape: torch.Size = walk.shapes[node]
    parts: Sequence[Tensor] = given["tensors"]
    if any(part.dim() != len(shape) for part in parts):
        return moved(walk, node, given)  # type: ignore[no-any-return]
    dim = given.get("dim", 0) % len(shape)
    for axis in range(len(shape)):
        if axis != dim and all(_repeats(part, axis) for part in parts):
            parts = [part.narrow(axis, 0, 1) for part in parts]
    firsts = [part.narrow(dim, 0, 1) for part in parts if part.shape[dim]]
    if all(_repeats(part, dim) for part in parts) and all(torch.equal(first, firsts[0]) for first in firsts):
        return firsts[0].expand(shape)
    return torch.cat(list(parts), dim).expand(shape)


def padded(walk: "Walk", node: Node, given: Mapping[str, Any]) -> Tensor:
    """Borders of a map belong to it, whatever they hold; channels that are added are none, or copies."""
    numbers: Tensor = given["self" if "self" in given else "input"]
    shape: torch.Size = walk.shapes[node]
    amounts = list(given["pad" if "pad" in given else "padding"])
    axes = [numbers.dim() - 1 - place // 2 for place, amount in enumerate(amounts) if amount]
    across = [axis for axis in axes if not _repeats(numbers, axis)]
    for axis in set(axes) - set(across):
        numbers = numbers.narrow(axis, 0, 1)
        first = 2 * (numbers.dim() - 1 - axis)
        amounts[first : first + 2] = [0, 0]
    if across:
        numbers = F.pad(numbers, amounts, given.get("mode") or "constant")
    return numbers.expand(shape)


def _repeats(numbers: Tensor, dim: int) -> bool:
    """Whether numbers are the same all along an axis."""
    if numbers.shape[dim] < 2 or numbers.stride(dim) == 0:
        return True
    return bool((numbers == numbers.narrow(dim, 0, 1)).all())
