"""What the memory limit of scoring allows: the bytes of each step, and how many coalitions one run stacks.

Three things are alive at one time: the values that the frontier keeps of other cells; the values of the cell that is
scored, at the cut, with what its losses are measured against; and the tensors of the step that runs, which is the
dense pass of a cell, the trial of a game, or one tile of coalitions. The steps are measured once by running them. What
is left of the limit beside the largest step is the frontier's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.errors import BudgetError
from secateur.graph.program import Program

MEMORY = 1 << 30
SLACK = 1.02  # that measured bytes may be beyond a limit: another run may measure a little more or less
TILE_BYTES = 1 << 24
MOST_STACKED = 256


@dataclass(frozen=True)
class StepBytes:
    """Bytes of the steps of one game, each on the largest cell.

    Args:
        name: what is scored.
        dense: the dense pass, with the losses.
        cell: the values of a cell at the cut.
        reference: what its losses are measured against.
        run: the largest run from the cut on: the trial, a tile of coalitions, or a tile with its gradients.
    """

    name: str
    dense: int
    cell: int
    reference: int
    run: int

    @property
    def most(self) -> int:
        """What the largest step takes, beside the values that the frontier keeps of other cells."""
        return self.reference + max(self.dense, self.cell + self.run)


def room_beside(options: Mapping[str, Any], steps: StepBytes) -> int:
    """How many bytes the frontier may keep beside the steps of a game.

    A step may take more than the default limit, which is none that the user has set: then nothing is kept.
    """
    return max(memory_of(options) - steps.most, 0)


def check_limit(options: Mapping[str, Any], needed: Iterable[StepBytes]) -> None:
    """
    Raises:
        BudgetError: a step takes more than the limit that the user has set.
    """
    largest = max(needed, key=lambda steps: steps.most, default=None)
    if options.get("memory") is not None and largest is not None and largest.most > memory_of(options) * SLACK:
        raise too_little(memory_of(options), f"score {largest.name}", largest.most)


def too_little(memory: int, what: str, least: int) -> BudgetError:
    """The error for a limit below what the largest step takes."""
    return BudgetError(
        f"memory={memory:,} bytes is too little to {what}: one step needs {least:,}; give memory={least} or more, or "
        "smaller examples"
    )


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
    program: Program, needed: Sequence[Node], span: tuple[int, int], consumers: Iterable[Node]
) -> tuple[int, int]:
    """The most that values within a span of the program take at one time, and what all of them take.

    Args:
        program: the program, with the traced example's sizes.
        needed: nodes before the span whose values it needs.
        span: positions of its first node and the one behind its last.
        consumers: nodes that hold a masked copy of what they read.
    """
    alive: dict[Node, int] = {node: bytes_of(node) for node in needed}
    most = all_ = sum(alive.values())
    twice = set(consumers)
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
