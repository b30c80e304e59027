"""The game: players are the units of a group, the value of a coalition is minus the loss with only its members.

The program runs up to the group's first reader once for each cell of examples. From there on it runs for many
coalitions stacked in one batch, as many as the memory limit allows; a network whose batch can't be stacked runs one
coalition at a time. How many are stacked never changes what is computed for each.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data import Batch
from secateur.errors import SecateurError
from secateur.importance.evidence import Evidence, Reference
from secateur.network.masked import Removal
from secateur.network.units import Group, Reader

MEMORY = 1 << 29
AGREE = 1e-3


@dataclass(frozen=True)
class Prefix:
    """What the rest of the program needs of one cell: the values that live at the cut, and the reference."""

    live: dict[Node, Any]
    reference: Reference
    examples: int


class Game:
    """The value of any coalition of a group's units, for each example.

    Args:
        evidence: the network and the examples.
        group: the players.
        memory: how many bytes of activations may be stacked.
    """

    def __init__(self, evidence: Evidence, group: Group, memory: int = MEMORY) -> None:
        self.evidence, self.group, self.memory = evidence, group, memory
        self.program = evidence.network.program
        self.readers: tuple[Reader, ...] = evidence.network.readers_of(group)
        self.cut = min(self.program.position[reader.node] for reader in self.readers)
        self.end = len(self.program.nodes) - 1

    @property
    def players(self) -> int:
        return self.group.size

    @cached_property
    def needed(self) -> tuple[Node, ...]:
        """Nodes before the cut whose values the rest of the program, or the output, needs."""
        fixed = self.program.state_names.keys() | self.program.constants.keys()
        before = self.program.nodes[: self.cut]
        return tuple(node for node in before if self.program.last_use[node] >= self.cut and node not in fixed)

    @cached_property
    def prefixes(self) -> list[Prefix]:
        return [self._prefix(cell) for cell in self.evidence.cells]

    def _prefix(self, cell: Batch) -> Prefix:
        reference = self.evidence.reference(cell)
        with torch.no_grad():
            values = {**self.program.fixed(), **self.program.bind(cell)}
            values = self.program.run(values, self.program.first, self.cut, {}, keep=self.needed)
        return Prefix({node: values[node] for node in self.needed}, reference, cell.size or 1)

    def __call__(self, coalitions: Tensor, cell: int) -> Tensor:
        """Minus the loss of each example with each coalition.

        Args:
            coalitions: which players take part (coalitions, players), booleans.
            cell: the number of the cell of examples.

        Returns:
            (coalitions, examples) in float64, on the CPU.
        """
        prefix = self.prefixes[cell]
        at_once = self.stacked(cell)
        parts = [self._run(part, prefix) for part in coalitions.split(at_once)]
        return torch.cat(parts)

    def stacked(self, cell: int) -> int:
        """How many coalitions are stacked in one batch for a cell."""
        if not self.stacks:
            return 1
        return max(1, int(self.memory // max(self.bytes_per_example * self.prefixes[cell].examples, 1)))

    @cached_property
    def stacks(self) -> bool:
        """Whether several coalitions in one batch give what each gives alone; tried on the first cell."""
        if self.program.batched is None:
            return False
        prefix = self.prefixes[0]
        pair = torch.ones(2, self.players, dtype=torch.bool)
        pair[1, ::2] = False
        alone = torch.cat([self._run(coalition, prefix) for coalition in pair.split(1)])
        try:
            together = self._run(pair, prefix)
        except (SecateurError, RuntimeError, ValueError, IndexError, AssertionError):
            return False
        scale = alone.abs().max().clamp_min(1e-6)
        return bool(((together - alone).abs().max() / scale) < AGREE)

    @cached_property
    def bytes_per_example(self) -> int:
        """The most that values after the cut take at one time, for one example."""
        alive: dict[Node, int] = {node: _bytes(node) for node in self.needed}
        most = sum(alive.values())
        for index in range(self.cut, self.end):
            node = self.program.nodes[index]
            alive[node] = 2 * _bytes(node) if any(reader.node is node for reader in self.readers) else _bytes(node)
            most = max(most, sum(alive.values()))
            for used in [used for used in alive if self.program.last_use[used] <= index]:
                del alive[used]
        return max(most // (self.evidence.network.example.size or 1), 1)

    def _run(self, coalitions: Tensor, prefix: Prefix) -> Tensor:
        count, network = len(coalitions), self.evidence.network
        masks = torch.ones(count, network.units + 1, dtype=torch.bool)
        masks[:, self.group.span] = coalitions
        handlers = Removal(self.evidence.means).handlers(network, masks, self.readers)
        live = {node: self.program.stack(node.meta.get("val"), value, count) for node, value in prefix.live.items()}
        with torch.no_grad():
            keep = self.program.output_nodes
            values = self.program.run({**self.program.fixed(), **live}, self.cut, self.end, handlers, keep)
            output = self.program.finish(values)
            reference = prefix.reference.repeated(count) if count > 1 else prefix.reference
            losses = self.evidence.losses(output, reference, count * prefix.examples)
        return -losses.double().cpu().view(count, prefix.examples)


def _bytes(node: Node) -> int:
    """The size of a node's value on the traced example."""
    total = 0
    for leaf in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(leaf, Tensor):
            lengths = [length.node.hint if isinstance(length, torch.SymInt) else length for length in leaf.shape]
            total += math.prod(int(length or 1) for length in lengths) * leaf.element_size()
    return total
