"""The memory limit of scoring: the bytes of each step, and the number of coalitions that one run stacks.

Three kinds of tensors are alive at one time: the values that the cursor keeps of other microbatches; the values of the
current microbatch at the cut, with the reference of its losses; and the tensors of the current step, which is the
dense pass of a microbatch, the trial of a game, or one tile of coalitions. The steps are measured once by running
them. The cursor may use what the limit leaves beside the largest step.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.errors import BudgetError
from secateur.graph.program import Program

DEFAULT_BYTES = 1 << 30
SLACK = 1.02  # factor by which measured bytes may exceed a limit: another run may measure a little more or less
TILE_BYTES = 1 << 24
MOST_STACKED = 256


@dataclass(frozen=True)
class StepBytes:
    """Bytes of the steps of one game, each on the largest microbatch.

    Args:
        name: the group that is scored.
        dense: the dense pass, with the losses.
        live: the values of a microbatch at the cut.
        reference: the reference of its losses.
        run: the largest run from the cut on: the trial, a tile of coalitions, or a tile with its gradients.
    """

    name: str
    dense: int
    live: int
    reference: int
    run: int

    @property
    def most(self) -> int:
        """The bytes of the largest step, beside the values that the cursor keeps of other microbatches."""
        return self.reference + max(self.dense, self.live + self.run)


@dataclass(frozen=True)
class MemoryLimit:
    """The bytes of activations that may be alive at once.

    Args:
        requested: the user's limit, or None for the default one, which refuses nothing.
    """

    requested: float | None = None

    @property
    def bytes(self) -> int:
        """The limit in bytes."""
        return int(self.requested or DEFAULT_BYTES)

    def room_beside(self, steps: StepBytes) -> int:
        """Return the bytes that the cursor may keep beside the steps of a game: none where a step needs all."""
        return max(self.bytes - steps.most, 0)

    def check(self, steps: Iterable[StepBytes]) -> None:
        """Check that every step keeps the user's limit.

        Raises:
            BudgetError: a step needs more.
        """
        largest = max(steps, key=lambda step: step.most, default=None)
        if largest is not None:
            self.check_bytes(f"score {largest.name}", largest.most)

    def check_bytes(self, task: str, needed_bytes: int) -> None:
        """Check that a task keeps the user's limit.

        Args:
            task: the task in words that follow "to".
            needed_bytes: the bytes of its largest step.

        Raises:
            BudgetError: it needs more.
        """
        if self.requested is not None and needed_bytes > SLACK * self.bytes:
            raise BudgetError(
                f"memory={self.bytes:,} bytes is too little to {task}: one step needs {needed_bytes:,}; give "
                f"memory={needed_bytes} or more, or smaller examples"
            )


def tile_size(most_rows: int, players: int) -> int:
    """Return the number of coalitions that one run stacks: a power of two.

    Args:
        most_rows: the largest number of bytes of one coalition at one time.
        players: the number of players.
    """
    fit = min(MOST_STACKED, max(TILE_BYTES // most_rows, 1), 4 * players)
    return int(2 ** math.floor(math.log2(fit)))


def program_bytes(
    program: Program, needed_nodes: Sequence[Node], span: tuple[int, int], consumers: Iterable[Node]
) -> tuple[int, int]:
    """Return the peak and the sum of the bytes of values within a span of the program.

    Args:
        program: the program, with the traced example's sizes.
        needed_nodes: nodes before the span whose values the span needs.
        span: positions of its first node and of the one behind its last.
        consumers: nodes that hold a masked copy of their input.
    """
    alive: dict[Node, int] = {node: bytes_of(node) for node in needed_nodes}
    peak = total = sum(alive.values())
    twice = set(consumers)
    for index in range(*span):
        node = program.nodes[index]
        alive[node] = 2 * bytes_of(node) if node in twice else bytes_of(node)
        peak, total = max(peak, sum(alive.values())), total + alive[node]
        for source in [source for source in alive if program.last_use[source] <= index]:
            del alive[source]
    return peak, total


def bytes_of(node: Node) -> int:
    """Return the bytes of a node's value on the traced example."""
    total = 0
    for leaf in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(leaf, Tensor):
            lengths = [length.node.hint if isinstance(length, torch.SymInt) else length for length in leaf.shape]
            total += math.prod(int(length or 1) for length in lengths) * leaf.element_size()
    return total
