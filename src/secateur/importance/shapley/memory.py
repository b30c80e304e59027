"""How much memory runs from a cut on take, and how many coalitions a run therefore stacks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.network.program import Program

MEMORY = 1 << 30
TILE_BYTES = 1 << 24
MOST_STACKED = 256


def memory_of(options: Mapping[str, Any]) -> int:
    """How many bytes of activations may be held at once."""
    return int(options.get("memory") or MEMORY)


def tile_for(most: int, players: int) -> int:
    """How many coalitions are stacked in one run: a power of two.

    Args:
        most: bytes that one of them takes at most at one time.
        players: how many there are.
    """
    fit = min(MOST_STACKED, max(TILE_BYTES // most, 1), 4 * players)
    return int(2 ** math.floor(math.log2(fit)))


def bytes_from(
    program: Program, needed: Sequence[Node], span: tuple[int, int], readers: Iterable[Node]
) -> tuple[int, int]:
    """The most that values within a span of the program take at one time, and what all of them take.

    Args:
        program: the program, with the traced example's sizes.
        needed: nodes before the span whose values it needs.
        span: positions of its first node and the one behind its last.
        readers: nodes that hold a masked copy of what they read.
    """
    alive: dict[Node, int] = {node: bytes_of(node) for node in needed}
    most = all_ = sum(alive.values())
    twice = set(readers)
    for index in range(*span):
        node = program.nodes[index]
        alive[node] = 2 * bytes_of(node) if node in twice else bytes_of(node)
        most, all_ = max(most, sum(alive.values())), all_ + alive[node]
        for used in [used for used in alive if program.last_use[used] <= index]:
            del alive[used]
    return most, all_


def bytes_of(node: Node) -> int:
    """The size of a node's value on the traced example."""
    total = 0
    for leaf in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(leaf, Tensor):
            lengths = [length.node.hint if isinstance(length, torch.SymInt) else length for length in leaf.shape]
            total += math.prod(int(length or 1) for length in lengths) * leaf.element_size()
    return total
