"""The positions of gates: factors of 1 on units, by which losses are differentiated (Molchanov et al. 2019).

In a residual stage a unit has one gate, which multiplies the output of every block, behind the addition and its
activation, as in the authors' released code. Elsewhere it has a gate behind each of its batch norms, and where there is
none one before everything that reads it; so, too, in a stage whose sums a normalisation reads (pre-activation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import UnitAxis
from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.batch_norms import norms_of

GateSite = Literal["blocks", "norms", "before norms"]


@dataclass(frozen=True, eq=False)
class GatePositions:
    """The positions of all gates of a network: operators whose results the gates of units multiply.

    In each position, `units` is -1 where there is no gate.

    Args:
        blocks: outputs of residual blocks, behind the addition.
        norms: results of batch norms, or what they normalise.
        at_readers: whose gate stands before all that reads the unit, booleans (units + 1,).
    """

    blocks: tuple[UnitAxis, ...]
    norms: tuple[UnitAxis, ...]
    at_readers: Tensor

    @property
    def count(self) -> Tensor:
        """Count the positions of each unit's gate; all consumers together are one. (units + 1,)"""
        total = self.at_readers.double()
        for position in (*self.blocks, *self.norms):
            total[position.units[position.units >= 0]] += 1
        return total


def gate_positions(network: Network, where: GateSite = "blocks") -> GatePositions:
    """Find the positions of the gates of a network's units.

    Args:
        network: the traced network.
        where: "blocks" for those described above; "norms" for gates behind batch norms in residual stages, too;
            "before norms" for gates on what batch norms normalise.
    """
    outputs = _block_outputs(network) if where == "blocks" else ()
    in_stage = _units_at(network, outputs)
    blocks = tuple(position for position in outputs if not set(position.node.users) & _normalisations(network))
    nodes_behind = (
        UnitAxis(
            arguments(node)["input"] if where == "before norms" else node, 1, torch.where(in_stage[units], -1, units)
        )
        for node, units in norms_of(network).items()
    )
    norms = tuple(position for position in nodes_behind if bool((position.units >= 0).any()))
    return GatePositions(blocks, norms, ~_units_at(network, (*blocks, *norms)))


def _units_at(network: Network, positions: Sequence[UnitAxis]) -> Tensor:
    """Mark the units that have a gate at any of these positions. (units + 1,)"""
    is_unit = torch.zeros(network.units + 1, dtype=torch.bool)
    for position in positions:
        is_unit[position.units[position.units >= 0]] = True
    return is_unit


def _block_outputs(network: Network) -> tuple[UnitAxis, ...]:
    """Find the outputs of residual blocks."""
    residual = torch.zeros(network.units + 1, dtype=torch.bool)
    for group in network.groups:
        residual[group.span] = group.kind == "residual"
    addition_nodes = {addition.node for addition in network.additions}
    outputs = (_addition_output(addition) for addition in network.additions)
    positions = (
        position
        for position in outputs
        if not (len(position.node.users) == 1 and set(position.node.users) <= addition_nodes)
    )
    kept = (
        UnitAxis(position.node, position.dim, torch.where(residual[position.units], position.units, -1))
        for position in positions
    )
    return tuple(position for position in kept if bool((position.units >= 0).any()))


def _normalisations(network: Network) -> set[Node]:
    """Find the operators that normalize units."""
    consumers = {consumer.node for consumer in network.consumers if rule_of(consumer.node).masked is not None}
    return consumers | set(norms_of(network))


def _addition_output(addition: UnitAxis) -> UnitAxis:
    """Return an addition's result behind the activation that alone uses it, if there is one."""
    node = addition.node
    while len(node.users) == 1 and _is_activation(next(iter(node.users)), node):
        node = next(iter(node.users))
    return UnitAxis(node, addition.dim, addition.units)


def _is_activation(user: Node, of: Node) -> bool:
    """Return whether an operator works elementwise on a single tensor."""
    tags = getattr(user.target, "tags", ())
    return user.op == "call_function" and torch.Tag.pointwise in tags and user.all_input_nodes == [of]
