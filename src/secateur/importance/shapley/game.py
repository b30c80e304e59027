"""The game: players are the units of a group, the value of a coalition is minus the loss with only its members.

The program runs up to the group's first reader once for each cell of examples, and what lives there is kept as far as
memory allows. From there on it runs for several coalitions stacked in one batch, a tile; a network whose batch can't
be stacked runs one coalition at a time. Matrix products round differently for batches of different sizes, so the size
of a tile depends on the network alone, and every run is one full tile: then memory never changes a result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data import Batch
from secateur.errors import BudgetError, SecateurError
from secateur.importance.evidence import Evidence
from secateur.importance.losses import Reference
from secateur.network.masked import Removal
from secateur.network.units import Group, Reader

MEMORY = 1 << 30
TILE_BYTES = 1 << 26
MOST_STACKED = 64
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
        cells: the examples, in the pieces that are evaluated together.
        memory: how many bytes of activations may be held at once.

    Raises:
        BudgetError: that is less than one tile takes.
    """

    def __init__(self, evidence: Evidence, group: Group, cells: Sequence[Batch], memory: int = MEMORY) -> None:
        self.evidence, self.group, self.cells = evidence, group, cells
        self.program = evidence.network.program
        self.readers: tuple[Reader, ...] = evidence.network.readers_of(group)
        self.cut = min(self.program.position[reader.node] for reader in self.readers)
        self.end = len(self.program.nodes) - 1
        self._prefixes: dict[int, Prefix] = {}
        least = self.tile * self.bytes_per_example * self._most_examples
        if memory < least:
            raise BudgetError(
                f"memory={memory:,} bytes is too little to score {group.name}: one step needs {least:,}; give more, or "
                "smaller batches of data"
            )
        self._room = memory - least

    @property
    def _most_examples(self) -> int:
        return max(cell.size or 1 for cell in self.cells)

    @property
    def players(self) -> int:
        return self.group.size

    @cached_property
    def needed(self) -> tuple[Node, ...]:
        """Nodes before the cut whose values the rest of the program, or the output, needs."""
        fixed = self.program.state_names.keys() | self.program.constants.keys()
        before = self.program.nodes[: self.cut]
        return tuple(node for node in before if self.program.last_use[node] >= self.cut and node not in fixed)

    def prefix(self, cell: int) -> Prefix:
        """What the rest of the program needs of a cell; kept while there is room, else made again."""
        if cell in self._prefixes:
            return self._prefixes[cell]
        made = self._prefix(self.cells[cell])
        taken = sum(_held(value) for value in made.live.values())
        if taken <= self._room:
            self._room -= taken
            self._prefixes[cell] = made
        return made

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
        prefix = self.prefix(cell)
        tile = self.tile
        missing = -len(coalitions) % tile
        full = torch.cat([coalitions, coalitions[-1:].expand(missing, -1)])
        return torch.cat([self._run(part, prefix) for part in full.split(tile)])[: len(coalitions)]

    @cached_property
    def tile(self) -> int:
        """How many coalitions are stacked in one run: a power of two."""
        if not self.stacks:
            return 1
        room = TILE_BYTES // (self.bytes_per_example * self._most_examples)
        most = min(MOST_STACKED, max(room, 1), 2 * self.players)
        return int(2 ** math.floor(math.log2(most)))

    @cached_property
    def stacks(self) -> bool:
        """Whether several coalitions in one batch give what each gives alone; tried on the first cell."""
        if self.program.batched is None:
            return False
        prefix = self._prefix(self.cells[0])
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


def _held(value: Any) -> int:
    """The bytes of a value's tensors."""
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _bytes(node: Node) -> int:
    """The size of a node's value on the traced example."""
    total = 0
    for leaf in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(leaf, Tensor):
            lengths = [length.node.hint if isinstance(length, torch.SymInt) else length for length in leaf.shape]
            total += math.prod(int(length or 1) for length in lengths) * leaf.element_size()
    return total
