"""Gates: factors of 1 on units, by which losses are differentiated.

`masking/gate_positions.py` says where they stand. The one gate of a unit that stands behind several blocks closes all
of
them: its derivative is the sum of what each contributes. Its square is divided by the number of blocks, as in the
authors' released code (Molchanov et al. 2019). Of gates behind several batch norms the squares are averaged.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.coupling.network import Group, Network
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.program import OpFn, OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.importance.context import CriterionContext
from secateur.importance.gradient import example_loss
from secateur.masking.ablation import MeanAblation, as_factor, chain_overrides
from secateur.masking.gate_positions import GatePosition, GateSite, gate_positions


class Gates:
    """All gates of a network.

    Args:
        context: the network, the examples and the loss.
        where: where they stand, as `gate_places` takes it.
    """

    def __init__(self, context: CriterionContext, where: GateSite = "blocks") -> None:
        self.context = context
        self.places = gate_positions(context.network, where)
        self.count = self.places.count

    def losses(self, cell: Batch, copies: int) -> tuple[Tensor, Tensor]:
        """Every example's loss (examples,), and the gates that it can be differentiated by.

        Args:
            cell: the examples.
            copies: how many copies of the gates there are: one for all examples, or one for each.

        Returns:
            The losses, and the gates (copies, rows, units + 1): a row for blocks and readers, and one for each norm.

        Raises:
            DataError: one for each is asked for, and the network's code fixes the batch size.
        """
        network = self.context.network
        if copies > 1:
            need_examples_apart(network, "taylor-gates")
        rows = 1 + len(self.places.norms)
        gates = torch.ones(copies, rows, network.units + 1, device=network.device, requires_grad=True)
        before_readers = torch.where(self.places.at_readers.to(gates.device), gates[:, 0], 1.0)
        handlers: dict[Node, OpOverride] = straight_through(network.program)
        handlers |= MeanAblation({}).handlers(network, before_readers)
        for place, row in self._placed:
            gated = partial(_gated, network, place, gates[:, row])
            handlers[place.node] = chain_overrides([gated, handlers[place.node]]) if place.node in handlers else gated
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            output = self.context.forward(cell, handlers)
            return example_loss(self.context, cell, output), gates

    def entries(self, group: Group) -> list[list[int]]:
        """The row and the unit of each gate of a group."""
        standing = torch.zeros(1 + len(self.places.norms), self.context.network.units + 1, dtype=torch.bool)
        standing[0] = self.places.at_readers
        for place, row in self._placed:
            standing[row, place.units[place.units >= 0]] = True
        entries: list[list[int]] = torch.nonzero(standing).tolist()
        return [entry for entry in entries if group.span.start <= entry[1] < group.span.stop]

    @property
    def _placed(self) -> list[tuple[GatePosition, int]]:
        """Each place with the row of its gates."""
        return [(place, 0) for place in self.places.blocks] + [
            (place, row) for row, place in enumerate(self.places.norms, 1)
        ]

    def of_group(self, group: Group, squares: Tensor) -> Tensor:
        """The squares of a group's units, divided by the number of places at which a unit has a gate. (..., units)

        Args:
            group: the group.
            squares: (..., rows, units + 1).
        """
        shares: Tensor = squares[..., group.span].sum(-2) / self.count[group.span].to(squares)
        return shares


def _gated(
    network: Network, place: GatePosition, gates: Tensor, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """An operator's result, multiplied by the gates of its units."""
    result = target(*args, **kwargs)
    values, *rest = result if isinstance(result, tuple | list) else (result,)
    recorded = place.node.meta["val"]
    first = recorded[0] if isinstance(recorded, tuple | list) else recorded
    units = place.units.to(gates.device)
    factors = torch.where(units >= 0, gates[:, units], 1.0)  # (copies, size of the axis)
    gated = values * as_factor(factors.to(values), values, place.dim, network.program.batch_axis(first))
    return (gated, *rest) if rest else gated


def need_examples_apart(network: Network, instead: str) -> None:
    """
    Raises:
        DataError: the network's code fixes the batch size, so each example can't have gates of its own.
    """
    if network.program.batched is None:
        raise DataError(f"{network.title} fixes its batch size, so examples can't be told apart; rank by {instead!r}")


def cell_shares(context: CriterionContext) -> Tensor:
    """The part of all examples that each cell holds, (cells,)."""
    sizes = torch.tensor([float(cell.size or 1) for cell in context.microbatches], dtype=torch.float64)
    return sizes / sizes.sum()


def mean_over_cells(context: CriterionContext, found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean of one value per unit from each minibatch, weighted by its examples, and its standard error."""
    weights = cell_shares(context)
    values = torch.stack([part.double().cpu() for part in found])  # (cells, units)
    mean = weights @ values
    count = len(values)
    if count < 2:
        return mean, torch.zeros_like(mean)
    spread = (weights[:, None].square() * (values - mean).square()).sum(0) * count / (count - 1)
    return mean, spread.sqrt()
