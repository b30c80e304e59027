"""The game: players are the units of a group, the value of a coalition is minus the loss with only its members.

The dense network runs up to the players' first consumer once for each microbatch. From there on it runs for many
coalitions stacked in one batch, a tile, each with an example of the microbatch; a network whose batch can't be stacked
runs one coalition at a time on the whole microbatch. Matrix products round differently for batches of different sizes,
so the size of a tile depends on the network alone, and every run is one full tile: then memory never changes a result.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.errors import SecateurError
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.batching import tiles
from secateur.importance.shapley.coalition_runner import CoalitionRunner, MicrobatchValues
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.memory import program_bytes, tile_size
from secateur.importance.shapley.precision import find_precision, lowered_precision
from secateur.utils.devices import comparable_arithmetic
from secateur.utils.live_bytes import LiveBytes

STACKING_TOLERANCE = 1e-3  # of an example's largest loss, up to which a stack agrees with single runs
ROUNDING = 1e-6  # of the largest loss of all examples


class Game:
    """The value of any coalition of units, for each example.

    Args:
        context: the network and the examples.
        groups: the groups whose units are the players, in this order.
        config: the limit of memory and the precision.
        cursor: the source of the dense network's values at the cut.
    """

    def __init__(
        self,
        context: CriterionContext,
        groups: Sequence[Group],
        config: EvaluationConfig | None = None,
        cursor: DenseRun | None = None,
    ) -> None:
        config = config or EvaluationConfig()
        self.context, self.groups = context, tuple(groups)
        self.network, self.program = context.network, context.network.program
        self.runner = CoalitionRunner(context, groups, find_precision(config.precision))
        self.cut, self.end = self.runner.cut, self.runner.end
        self.cursor = cursor or DenseRun(context, config.memory_limit.bytes)
        self.trial_bytes = 0  # of the trial of stacking
        self._ends: dict[tuple[bool, int], Tensor] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of players of each group."""
        return self.runner.sizes

    @property
    def players(self) -> int:
        """The number of players."""
        return sum(self.sizes)

    @cached_property
    def stacks(self) -> bool:
        """True where a stack of coalitions and examples gives what each gives alone, by a trial on the first batch."""
        if self.program.batched is None or self.network.example.is_one_example:
            return False
        values = self.microbatch_values(0)
        with LiveBytes() as live:
            agrees = self._stacks_on(values)
        self.trial_bytes = live.peak
        return agrees

    @comparable_arithmetic()
    def _stacks_on(self, values: MicrobatchValues) -> bool:
        """Return whether the first and the last example of a microbatch give the same in a stack and alone.

        Each example is compared with its own losses: one with a large loss would hide the others.
        """
        coalitions = torch.ones(3, self.players, dtype=torch.bool)  # all players, and both halves of them
        coalitions[1, ::2] = coalitions[2, 1::2] = False
        examples = torch.tensor([values.dense.examples - 1, 0])
        values_alone = torch.cat(
            [self.runner.values_of_microbatch(coalition, values) for coalition in coalitions.split(1)]
        )
        try:
            with torch.no_grad():
                mixed_coalitions, positions = coalitions.repeat(2, 1), examples.repeat_interleave(3)
                stacked_values = self.runner.values_of_stack(mixed_coalitions, values, positions, with_sums=False).cpu()
        except (SecateurError, RuntimeError, ValueError, IndexError, AssertionError, TypeError):
            return False
        expected_values = values_alone[:, examples].T  # (examples, coalitions)
        tolerance = (
            STACKING_TOLERANCE * expected_values.abs().amax(1, keepdim=True)
            + ROUNDING * values_alone.abs().max()
            + 1e-9
        )
        return bool(((stacked_values.double().view(2, 3) - expected_values).abs() < tolerance).all())

    def cross(self, coalitions: Tensor, microbatch: int, positions: Tensor) -> Tensor:
        """Return minus the loss of each of these examples of a microbatch with each coalition.

        Args:
            coalitions: the members of each coalition (coalitions, players), booleans.
            microbatch: the number of the microbatch.
            positions: the positions of its examples, (examples,).

        Returns:
            (coalitions, examples) in float64, on the CPU.
        """
        if not len(coalitions):
            return torch.zeros(0, len(positions), dtype=torch.float64)
        if not self.stacks:
            values = self.microbatch_values(microbatch)
            with lowered_precision(self.network.device, self.runner.precision):
                runs = [self.runner.values_of_microbatch(coalition, values) for coalition in coalitions.split(1)]
            return torch.cat(runs)[:, positions]
        count, examples, values = len(coalitions), len(positions), self.microbatch_values(microbatch)
        by_example = torch.arange(count * examples).view(examples, count)  # contributions are computed for an example
        order = by_example if self.runner.ablation.adds_up else by_example.T  # predictions for a coalition
        order = order.flatten()
        runs = [
            self.values_of_tile(coalitions[order[rows] % count], values, positions[order[rows] // count])
            for rows in tiles(count * examples, self.tile)
        ]
        results = torch.empty(count * examples, dtype=torch.float64)
        results[order] = torch.cat(runs).cpu().double()[: count * examples]
        return results.view(examples, count).T

    def paired_values(self, coalitions: Tensor, microbatch: int, positions: Tensor) -> Tensor:
        """Return minus the loss of one example of a microbatch with each coalition.

        Args:
            coalitions: (coalitions, players), booleans; those of one example lie together.
            microbatch: the number of the microbatch.
            positions: the example of each coalition, (coalitions,).

        Returns:
            (coalitions,) in float64, on the CPU.
        """
        values = self.microbatch_values(microbatch)
        tile_rows = tiles(len(coalitions), self.tile)
        runs = [self.values_of_tile(coalitions[rows], values, positions[rows]) for rows in tile_rows]
        return torch.cat(runs).cpu().double()[: len(coalitions)]

    def gradients(self, coalitions: Tensor, microbatch: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of `paired_values`, and their derivatives by each player's presence.

        Presence is a gate between 0 and 1 at the consumers. For a member the derivative is the cost of losing it, for
        another player the gain by its joining, to first order.

        Returns:
            (coalitions,) and (coalitions, players) in float64, on the CPU.

        Raises:
            SecateurError: the loss has no gradient, or the network's batch can't be stacked.
        """
        if not self.stacks:
            raise SecateurError(f"{self.network.title} can't take several coalitions in one batch, as slopes need")
        microbatch_values, count, step = self.microbatch_values(microbatch), len(coalitions), max(self.tile // 2, 1)
        values = torch.empty(count, dtype=torch.float64)
        slopes = torch.empty(count, self.players, dtype=torch.float64)
        for start, selected in enumerate(tiles(count, step)):
            rows = slice(start * step, (start + 1) * step)
            tile = self.slopes_of_tile(coalitions[selected], microbatch_values, positions[selected])
            values[rows], slopes[rows] = (result[: count - rows.start] for result in tile)
        return values, slopes

    def ends(self, microbatch: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the losses without and with all players, for examples of a microbatch, (examples,) each."""
        return self._same_for_all(False, microbatch)[positions], self.everyone(microbatch, positions)

    def everyone(self, microbatch: int, positions: Tensor) -> Tensor:
        """Return minus the losses with all players, in the precision of coalitions, (examples,)."""
        if self.runner.precision is None:
            return self.cursor.dense_baseline(microbatch).values[positions]
        return self._same_for_all(True, microbatch)[positions]

    def _same_for_all(self, present: bool, microbatch: int) -> Tensor:
        """Return minus the losses of a microbatch with all players or none, computed once, (examples,)."""
        if (present, microbatch) not in self._ends:
            examples = torch.arange(self.microbatch_values(microbatch).dense.examples)
            coalition = torch.full((1, self.players), present)
            self._ends[present, microbatch] = self.cross(coalition, microbatch, examples)[0]
        return self._ends[present, microbatch]

    def microbatch_values(self, microbatch: int) -> MicrobatchValues:
        """Return the dense network's values of a microbatch."""
        baseline = self.cursor.dense_baseline(microbatch)
        return MicrobatchValues(microbatch, baseline, self.cursor.live_values(microbatch, self.cut))

    def values_of_tile(self, coalitions: Tensor, values: MicrobatchValues, positions: Tensor) -> Tensor:
        """Return minus the loss of one example with each of a tile's coalitions, (coalitions,)."""
        with torch.no_grad(), lowered_precision(self.network.device, self.runner.precision):
            return self.runner.values_of_stack(coalitions, values, positions)

    def slopes_of_tile(self, coalitions: Tensor, values: MicrobatchValues, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of a tile, (coalitions,), and their slopes by presence, (coalitions, players).

        Raises:
            SecateurError: the loss has no gradient.
        """
        with torch.enable_grad(), lowered_precision(self.network.device, self.runner.precision):
            gates = coalitions.float().requires_grad_()
            tile_values = self.runner.values_of_stack(gates, values, positions)
            try:
                return tile_values.detach(), torch.autograd.grad(tile_values.sum(), gates)[0]
            except RuntimeError as failure:
                raise SecateurError(
                    f"the loss of {self.network.title} has no gradient by the presence of {self.groups[0].name}; give "
                    f"a loss that has one, or take sampler='antithetic' ({failure})"
                ) from failure

    @cached_property
    def tile(self) -> int:
        """The number of coalitions that one run stacks: a power of two."""
        if not self.stacks:
            return 1
        consumers = [consumer.node for consumer in self.runner.consumers]
        peak, _ = program_bytes(self.program, self.runner.required_nodes, (self.cut, self.end), consumers)
        examples = self.network.example.size or 1
        return tile_size(max(int(peak / examples * self._growth), 1), self.players)

    @property
    def _growth(self) -> float:
        """The factor from the entries of the traced example to those of the largest one."""
        batches = (self.network.example, *self.context.microbatches)
        traced_entries, *sizes = (
            sum(tensor.numel() for tensor in batch.tensors) / (batch.size or 1) for batch in batches
        )
        return max([1.0, *(size / traced_entries for size in sizes)])
