"""The game: players are the units of a group, the value of a coalition is minus the loss with only its members.

The dense network runs up to the players' first reader once for each cell of examples. From there on it runs for many
coalitions stacked in one batch, a tile, each with an example of the cell; a network whose batch can't be stacked runs
one coalition at a time on the whole cell. Matrix products round differently for batches of different sizes, so the
size of a tile depends on the network alone, and every run is one full tile: then memory never changes a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Consumer, Group, Network
from secateur.errors import SecateurError
from secateur.graph.program import OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.additive_layer import AdditiveLayer, ContributionSums, additive_layer
from secateur.importance.shapley.batching import picked, reference_of, tiles
from secateur.importance.shapley.cursor import DenseBaseline, ProgramCursor
from secateur.importance.shapley.memory import bytes_from, memory_of, tile_for
from secateur.importance.shapley.precision import find_precision, full, lowered, raised
from secateur.masking.ablation import consumer_key
from secateur.utils.devices import comparable_arithmetic
from secateur.utils.live_bytes import LiveBytes

AGREE = 1e-3


def first_reader(network: Network, consumers: Sequence[Consumer]) -> int:
    """The position of the first reader."""
    return min(network.program.position[consumer.node] for consumer in consumers)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the dense network gave for a cell.

    Args:
        cell: its number.
        known: its losses and what they are measured against.
        live: the values at the cut.
    """

    cell: int
    known: DenseBaseline
    live: dict[Node, Any]


class Game:
    """The value of any coalition of units, for each example.

    Args:
        context: the network and the examples.
        groups: whose units the players are, in this order.
        frontier: what the dense network's values at the cut are taken from.

    Raises:
        NameMatchError: an unknown precision is asked for.
    """

    def __init__(
        self, context: CriterionContext, groups: Sequence[Group], frontier: ProgramCursor | None = None
    ) -> None:
        self.context, self.groups = context, tuple(groups)
        self.network, self.program = context.network, context.network.program
        found = [consumer for group in groups for consumer in self.network.readers_of(group)]
        self.consumers: tuple[Consumer, ...] = tuple(dict.fromkeys(found))
        self.cut = first_reader(self.network, self.consumers)
        self.end = len(self.program.nodes) - 1
        self.ablation = context.ablation
        self.precision = find_precision(context.options.get("precision"))
        self.through = straight_through(self.program)
        self.frontier = frontier or ProgramCursor(context, memory_of(context.options))
        self.trial_bytes = 0  # that the trial of stacking took

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many players each group has."""
        return tuple(group.size for group in self.groups)

    @property
    def players(self) -> int:
        return sum(self.sizes)

    @cached_property
    def needed(self) -> tuple[Node, ...]:
        """Nodes before the cut whose values the rest of the program, or the output, needs."""
        fixed = self.program.state_names.keys() | self.program.constants.keys()
        before = self.program.nodes[: self.cut]
        return tuple(node for node in before if self.program.last_use[node] >= self.cut and node not in fixed)

    @cached_property
    def summed(self) -> AdditiveLayer | None:
        """The layer at the cut as a sum of what each part of its input adds, where that is cheaper."""
        return additive_layer(self.program, self.consumers, self.cut) if self.stacks and self.ablation.adds_up else None

    @cached_property
    def sums(self) -> ContributionSums | None:
        summed = self.summed
        if summed is None:
            return None
        return ContributionSums(summed, self.ablation.means.get(consumer_key(summed.consumer)), self.program)

    def forget_parts(self) -> None:
        """Drop the parts of the last example that were summed."""
        self.__dict__.pop("sums", None)

    @cached_property
    def _others(self) -> tuple[Consumer, ...]:
        """The readers but for the one that is summed."""
        return tuple(
            consumer for consumer in self.consumers if self.summed is None or consumer is not self.summed.consumer
        )

    @cached_property
    def stacks(self) -> bool:
        """Whether coalitions and examples in any mixture give what each gives alone; tried on the first cell."""
        if self.program.batched is None or self.network.example.is_one_example:
            return False
        seen = self.seen(0)
        with LiveBytes() as live:
            agrees = self._stacks_on(seen)
        self.trial_bytes = live.peak
        return agrees

    @comparable_arithmetic()
    def _stacks_on(self, seen: Seen) -> bool:
        """Whether the first and the last example of a cell give the same in a mixture."""
        known = seen.known
        pair = torch.ones(2, self.players, dtype=torch.bool)
        pair[1, ::2] = False
        first, last = 0, known.examples - 1
        alone = torch.cat([self.values_of_cell(coalition, known, seen.live) for coalition in pair.split(1)])
        try:
            with torch.no_grad():
                mixed = self._masks(pair.flip(0).repeat(2, 1))
                together = self._stacked(mixed, replace(seen, cell=UNTRIED), [last, last, first, first]).cpu()
        except (SecateurError, RuntimeError, ValueError, IndexError, AssertionError, TypeError):
            return False
        expected = alone.flip(0)[:, [last, first]].T.flatten()
        scale = alone.abs().max().clamp_min(1e-6)
        return bool(((together - expected).abs().max() / scale) < AGREE)

    def cross(self, coalitions: Tensor, cell: int, positions: Tensor) -> Tensor:
        """Minus the loss of each of these examples of a cell with each coalition.

        Args:
            coalitions: which players take part (coalitions, players), booleans.
            cell: the number of the cell of examples.
            positions: which of its examples (examples,).

        Returns:
            (coalitions, examples) in float64, on the CPU.
        """
        if not len(coalitions):
            return torch.zeros(0, len(positions), dtype=torch.float64)
        if not self.stacks:
            known, live = self.frontier.known(cell), self.frontier.live(cell, self.cut)
            with lowered(self.network.device, self.precision):
                runs = [self.values_of_cell(each, known, live) for each in coalitions.split(1)]
            return torch.cat(runs)[:, positions]
        count, seen = len(coalitions), self.seen(cell)
        runs = [
            self.values_of_tile(coalitions[part % count], seen, positions[part // count])
            for part in tiles(count * len(positions), self.tile)
        ]
        return torch.cat(runs).cpu().double()[: count * len(positions)].view(len(positions), -1).T

    def each(self, coalitions: Tensor, cell: int, positions: Tensor) -> Tensor:
        """Minus the loss of one example of a cell with each coalition; those of one example lie together.

        Args:
            coalitions: (coalitions, players), booleans.
            cell: the number of the cell.
            positions: the example of each (coalitions,).

        Returns:
            (coalitions,) in float64, on the CPU.
        """
        seen, parts = self.seen(cell), tiles(len(coalitions), self.tile)
        runs = [self.values_of_tile(coalitions[part], seen, positions[part]) for part in parts]
        return torch.cat(runs).cpu().double()[: len(coalitions)]

    def seen(self, cell: int) -> Seen:
        """What the dense network gives for a cell."""
        known = self.frontier.known(cell)
        return Seen(cell, known, self.frontier.live(cell, self.cut))

    def values_of_tile(self, coalitions: Tensor, seen: Seen, positions: Tensor) -> Tensor:
        """Minus the loss of one example with each of a tile's coalitions. (coalitions,)"""
        with torch.no_grad(), lowered(self.network.device, self.precision):
            return self._stacked(self._masks(coalitions), seen, positions.tolist())

    def slopes_of_tile(self, coalitions: Tensor, seen: Seen, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the slopes by each player's presence. (coalitions,) and (coalitions, players)"""
        with torch.enable_grad(), lowered(self.network.device, self.precision):
            gates = coalitions.float().requires_grad_()
            values = self._stacked(self._masks(gates), seen, positions.tolist())
            return values.detach(), self._slope(values, gates)

    def gradients(self, coalitions: Tensor, cell: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As `each`, and how fast it grows with each player's presence, members or not.

        Presence is a gate between 0 and 1 at the readers. For a member the slope says what it would cost to lose it,
        for another what it would bring to have it, as far as that is linear.

        Returns:
            (coalitions,) and (coalitions, players) in float64, on the CPU.

        Raises:
            SecateurError: the loss has no gradient, or the network's batch can't be stacked.
        """
        if not self.stacks:
            raise SecateurError(f"{self.network.title} can't take several coalitions in one batch, as slopes need")
        seen, count, step = self.seen(cell), len(coalitions), max(self.tile // 2, 1)
        values = torch.empty(count, dtype=torch.float64)
        slopes = torch.empty(count, self.players, dtype=torch.float64)
        for start, part in enumerate(tiles(count, step)):
            rows = slice(start * step, (start + 1) * step)
            value, slope = self.slopes_of_tile(coalitions[part], seen, positions[part])
            values[rows] = value[: count - rows.start]
            slopes[rows] = slope[: count - rows.start]
        return values, slopes

    def _slope(self, found: Tensor, gates: Tensor) -> Tensor:
        """
        Raises:
            SecateurError: there is none.
        """
        try:
            return torch.autograd.grad(found.sum(), gates)[0]
        except RuntimeError as failure:
            raise SecateurError(
                f"the loss of {self.network.title} has no gradient by the presence of {self.groups[0].name}; give a "
                f"loss that has, or take estimator='antithetic' ({failure})"
            ) from failure

    def ends(self, cell: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the losses with nobody and with all, for these examples of a cell. (examples,) each"""
        nobody = torch.zeros(1, self.players, dtype=torch.bool)
        return self.cross(nobody, cell, positions)[0], self.everyone(cell, positions)

    def everyone(self, cell: int, positions: Tensor) -> Tensor:
        """Minus the losses with all, for these examples of a cell, rounded as coalitions are. (examples,)"""
        if self.precision is None:
            return self.frontier.known(cell).values[positions]
        return self.cross(torch.ones(1, self.players, dtype=torch.bool), cell, positions)[0]

    @cached_property
    def tile(self) -> int:
        """How many coalitions are stacked in one run: a power of two."""
        if not self.stacks:
            return 1
        return tile_for(self._bytes_per_example[0], self.players)

    @cached_property
    def _bytes_per_example(self) -> tuple[int, int]:
        """The most that values after the cut take at one time, and what all of them take, for one example."""
        consumers = [consumer.node for consumer in self.consumers]
        found = bytes_from(self.program, self.needed, (self.cut, self.end), consumers)
        examples = self.network.example.size or 1
        most, all_ = (max(int(count / examples * self._growth), 1) for count in found)
        return most, all_

    @property
    def _growth(self) -> float:
        """How many times larger than the example that the network was traced with the largest one is."""
        cells = (self.network.example, *self.context.cells)
        traced, *sizes = (sum(t.numel() for t in cell.tensors) / (cell.size or 1) for cell in cells)
        return max([1.0, *(size / traced for size in sizes)])

    def values_of_cell(self, coalition: Tensor, known: DenseBaseline, live: dict[Node, Any]) -> Tensor:
        """One coalition (1, players) on a whole cell, as it is. (1, examples)"""
        handlers = self.ablation.handlers(self.network, self._masks(coalition), self.consumers)
        with torch.no_grad():
            values = self._values(dict(live), handlers, known.reference, known.examples)
        return values.cpu().double()[None]

    def _stacked(self, masks: Tensor, seen: Seen, places: list[int]) -> Tensor:
        """Each mask with its own example of a cell, in one batch. (masks,)"""
        positions = torch.tensor(places, device=self.network.device)
        known, live = seen.known, seen.live
        sums = self.sums if seen.cell != UNTRIED and len(places) >= ROWS * len(set(places)) else None
        consumers = self.consumers if sums is None else self._others
        handlers = self.ablation.handlers(self.network, masks, consumers)
        spared = None
        if sums is not None:
            operand = sums.summed.operand
            handlers[sums.summed.consumer.node] = sums.handler(live[operand], seen.cell, places, masks)
            spared = operand if self._read_once(operand) else None
        taken = {
            node: value
            if node is spared
            else picked(self.program, node.meta.get("val"), value, positions, known.examples)
            for node, value in live.items()
        }
        return self._values(taken, handlers, reference_of(known.reference, positions), len(places))

    def _read_once(self, operand: Node) -> bool:
        """Whether nothing after the cut needs a value but the reader there."""
        return all(self.program.position[user] <= self.cut for user in operand.users)

    def _masks(self, coalitions: Tensor) -> Tensor:
        masks = torch.ones(len(coalitions), self.network.units + 1, dtype=coalitions.dtype)
        for group, part in zip(self.groups, coalitions.split(self.sizes, 1), strict=True):
            masks[:, group.span] = part
        return masks

    def _values(self, values: dict[Node, Any], handlers: dict[Node, OpOverride], reference: Any, rows: int) -> Tensor:
        """Minus the losses, from the values that live at the cut, which are used up. (rows,)"""
        keep = self.program.output_nodes
        handlers = {**self.through, **handlers}
        values.update(self.program.fixed())
        self.program.run(values, self.cut, self.end, handlers, keep)
        with full(self.network.device, self.precision):
            return -self.context.losses(raised(self.program.finish(values), self.precision), reference, rows)


UNTRIED = -1
ROWS = 8  # of an example, from which on its parts are worth being computed
