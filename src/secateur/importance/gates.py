"""Gates: factors of 1 on units, by which losses are differentiated.

`masking/gate_positions.py` defines their positions. The one gate of a unit behind several blocks closes all of them:
its derivative is the sum of their contributions. Its square is divided by the number of blocks, as in the authors'
released code (Molchanov et al. 2019). Of gates behind several batch norms the squares are averaged.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.coupling.consumers import UnitAxis
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.program import OpFn, OpOverride
from secateur.importance.context import CriterionContext
from secateur.importance.gradient import example_loss
from secateur.masking.ablation import MeanAblation
from secateur.masking.gate_positions import GateSite, gate_positions
from secateur.masking.operand_overrides import as_factor, chain_overrides
from secateur.masking.operands import recorded_operand
from secateur.masking.straight_through import straight_through


class Gates:
    """All gates of a network.

    Args:
        context: the network, the examples and the loss.
        where: their positions, as `gate_positions` takes them.
    """

    def __init__(self, context: CriterionContext, where: GateSite = "blocks") -> None:
        self.context = context
        self.positions = gate_positions(context.network, where)
        self.count = self.positions.count

    def losses(self, batch: Batch, copies: int) -> tuple[Tensor, Tensor]:
        """Return every example's loss (examples,), and the gates that it can be differentiated by.

        Args:
            batch: the examples.
            copies: the number of copies of the gates: one for all examples, or one for each.

        Returns:
            The losses, and the gates (copies, rows, units + 1): a row for blocks and consumers, and one for each norm.
        """
        network = self.context.network
        rows = 1 + len(self.positions.norms)
        gates = torch.ones(copies, rows, network.units + 1, device=network.device, requires_grad=True)
        before_consumers = torch.where(self.positions.at_readers.to(gates.device), gates[:, 0], 1.0)
        handlers: dict[Node, OpOverride] = straight_through(network.program)
        handlers |= MeanAblation({}).handlers(network, before_consumers)
        for position, row in self._rows:
            node, gated = position.node, partial(_apply_gates, network, position, gates[:, row])
            handlers[node] = chain_overrides([gated, handlers[node]]) if node in handlers else gated
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            output = self.context.forward(batch, handlers)
            return example_loss(self.context, batch, output), gates

    def derivatives_by_example(self, batch: Batch) -> Tensor:
        """Return the derivative of each example's loss by the gates, (examples, rows, units + 1).

        Raises:
            DataError: the network's code fixes the batch size.
        """
        if (batch.size or 1) > 1:
            check_divisible_batches(self.context.network, "taylor-gates")
        if self._has_entries_per_example:
            losses, gates = self.losses(batch, batch.size or 1)
            return torch.autograd.grad(losses.sum(), gates)[0]
        losses, gates = self.losses(batch, 1)
        return torch.cat([torch.autograd.grad(loss, gates, retain_graph=True)[0] for loss in losses])

    @cached_property
    def _has_entries_per_example(self) -> bool:
        """True where a gate of each example reaches the entries of that example alone, at all positions of gates."""
        program = self.context.network.program
        consumers = (consumer for consumer in self.context.network.consumers if not consumer.is_inner)
        values = [recorded_operand(consumer) for consumer in consumers]
        values += [_recorded_first_result(position) for position, _ in self._rows]
        return all(program.has_entry_per_example(value) for value in values)

    def entries(self, group: Group) -> list[list[int]]:
        """Return the row and the unit of each gate of a group."""
        has_gate = torch.zeros(1 + len(self.positions.norms), self.context.network.units + 1, dtype=torch.bool)
        has_gate[0] = self.positions.at_readers
        for position, row in self._rows:
            has_gate[row, position.units[position.units >= 0]] = True
        entries: list[list[int]] = torch.nonzero(has_gate).tolist()
        return [entry for entry in entries if group.span.start <= entry[1] < group.span.stop]

    @property
    def _rows(self) -> list[tuple[UnitAxis, int]]:
        """Each position with the row of its gates."""
        norms = [(position, row) for row, position in enumerate(self.positions.norms, 1)]
        return [(position, 0) for position in self.positions.blocks] + norms

    def of_group(self, group: Group, squares: Tensor) -> Tensor:
        """Return the squares of a group's units, divided by the number of its gates, (..., units).

        Args:
            group: the group.
            squares: (..., rows, units + 1).
        """
        shares: Tensor = squares[..., group.span].sum(-2) / self.count[group.span].to(squares)
        return shares


def _apply_gates(
    network: Network, position: UnitAxis, gates: Tensor, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return an operator's result, multiplied by the gates of its units."""
    result = target(*args, **kwargs)
    values, *other_results = result if isinstance(result, tuple | list) else (result,)
    units = position.units.to(gates.device)
    factors = torch.where(units >= 0, gates[:, units], 1.0)  # (copies, size of the axis)
    axis = network.program.batch_axis(_recorded_first_result(position))
    gated_values = values * as_factor(factors.to(values), values, position.dim, axis)
    return (gated_values, *other_results) if other_results else gated_values


def _recorded_first_result(position: UnitAxis) -> Any:
    """Return the first result of an operator as the export recorded it, with its symbolic shape."""
    recorded_value = position.node.meta["val"]
    return recorded_value[0] if isinstance(recorded_value, tuple | list) else recorded_value


def check_divisible_batches(network: Network, alternative: str) -> None:
    """Check that each example can have gates of its own.

    Args:
        network: the network.
        alternative: the criterion that the message offers.

    Raises:
        DataError: the network's code fixes the batch size, so that examples can't be told apart.
    """
    if network.program.batched is None:
        raise DataError(
            f"{network.title} fixes its batch size, so examples can't be told apart; rank by {alternative!r}"
        )


def microbatch_weights(context: CriterionContext) -> Tensor:
    """Return the fraction of all examples in each microbatch, (microbatches,)."""
    sizes = torch.tensor([float(batch.size or 1) for batch in context.microbatches], dtype=torch.float64)
    return sizes / sizes.sum()


def mean_over_microbatches(context: CriterionContext, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean of each microbatch's values, weighted by its examples, and its standard error, (units,) each.

    Args:
        context: the criterion's input.
        tensors: the values of each microbatch (units,).
    """
    weights = microbatch_weights(context)
    values = torch.stack([tensor.double().cpu() for tensor in tensors])  # (microbatches, units)
    mean = weights @ values
    count = len(values)
    if count < 2:
        return mean, torch.zeros_like(mean)
    spread = (weights[:, None].square() * (values - mean).square()).sum(0) * count / (count - 1)
    return mean, spread.sqrt()
