"""Where the gate of each unit stands: a factor of 1, by which losses are differentiated (Molchanov et al. 2019).

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

from secateur.coupling.network import Addition, Network
from secateur.graph.program import arguments, operator_name
from secateur.masking.linear_layers import norms_of
from secateur.masking.norms import MASKED_NORMS

GateSite = Literal["blocks", "norms", "before norms"]


@dataclass(frozen=True, eq=False)
class GatePosition:
    """An operator whose result the gates of units multiply.

    Args:
        node: the operator.
        dim: the axis of its result on which the units lie.
        units: for each index along the axis the number of its unit in the network, -1 where there is no gate.
    """

    node: Node
    dim: int
    units: Tensor


@dataclass(frozen=True, eq=False)
class GatePositions:
    """The places of all gates of a network.

    Args:
        blocks: outputs of residual blocks, behind the addition.
        norms: results of batch norms, or what they normalise.
        at_readers: whose gate stands before all that reads the unit, booleans (units + 1,).
    """

    blocks: tuple[GatePosition, ...]
    norms: tuple[GatePosition, ...]
    at_readers: Tensor

    @property
    def count(self) -> Tensor:
        """At how many places each unit's gate stands; all readers together are one. (units + 1,)"""
        total = self.at_readers.double()
        for place in (*self.blocks, *self.norms):
            total[place.units[place.units >= 0]] += 1
        return total


def gate_positions(network: Network, where: GateSite = "blocks") -> GatePositions:
    """The places of the gates of a network's units.

    Args:
        network: the traced network.
        where: "blocks" for those described above; "norms" for gates behind batch norms in residual stages, too;
            "before norms" for gates on what batch norms normalise.
    """
    outputs = _block_outputs(network) if where == "blocks" else ()
    in_stage = _marked(network, outputs)
    blocks = tuple(place for place in outputs if not set(place.node.users) & _normalisations(network))
    behind = (
        GatePosition(
            arguments(node)["input"] if where == "before norms" else node, 1, torch.where(in_stage[units], -1, units)
        )
        for node, units in norms_of(network).items()
    )
    norms = tuple(place for place in behind if bool((place.units >= 0).any()))
    return GatePositions(blocks, norms, ~_marked(network, (*blocks, *norms)))


def _marked(network: Network, places: Sequence[GatePosition]) -> Tensor:
    """Which units have a gate at any of these places. (units + 1,)"""
    marked = torch.zeros(network.units + 1, dtype=torch.bool)
    for place in places:
        marked[place.units[place.units >= 0]] = True
    return marked


def _block_outputs(network: Network) -> tuple[GatePosition, ...]:
    """The outputs of residual blocks."""
    residual = torch.zeros(network.units + 1, dtype=torch.bool)
    for group in network.groups:
        residual[group.span] = group.kind == "residual"
    added = {addition.node for addition in network.additions}
    found = (_output(addition) for addition in network.additions)
    places = (place for place in found if not (len(place.node.users) == 1 and set(place.node.users) <= added))
    kept = (
        GatePosition(place.node, place.dim, torch.where(residual[place.units], place.units, -1)) for place in places
    )
    return tuple(place for place in kept if bool((place.units >= 0).any()))


def _normalisations(network: Network) -> set[Node]:
    """The operators that normalise units."""
    consumers = {consumer.node for consumer in network.consumers if operator_name(consumer.node) in MASKED_NORMS}
    return consumers | set(norms_of(network))


def _output(addition: Addition) -> GatePosition:
    """An addition's result behind the activation that alone uses it, if there is one."""
    node = addition.node
    while len(node.users) == 1 and _is_activation(next(iter(node.users)), node):
        node = next(iter(node.users))
    return GatePosition(node, addition.dim, addition.units)


def _is_activation(user: Node, of: Node) -> bool:
    """Whether an operator works entry by entry on one tensor alone."""
    tags = getattr(user.target, "tags", ())
    return user.op == "call_function" and torch.Tag.pointwise in tags and user.all_input_nodes == [of]
