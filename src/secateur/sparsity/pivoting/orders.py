"""Orders of units folded into a network: what a layer makes in another order is read in that order by all readers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.errors import SurgeryError
from secateur.graph.contexts import preserved, run_module
from secateur.masking.linear_layers import LinearLayer, identity_weight
from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.surgery.verify import output_difference
from secateur.utils.devices import comparable_arithmetic


@dataclass(frozen=True, eq=False)
class Axes:
    """What the orders along a layer's matrix are: those of groups of units, or its own.

    Args:
        layer: the layer.
        rows: the name of a group whose units the outputs are, one by one; else the layer's own, which stays.
        columns: the same of its inputs; where they are no group's, a gather before the layer gives them their order.
    """

    layer: LinearLayer
    rows: str
    columns: str

    @property
    def gathers(self) -> bool:
        return self.columns == own_columns(self.layer)


def own_columns(layer: LinearLayer) -> str:
    """The name of a layer's own order of inputs."""
    return f"{layer.weight}:columns"


def axes_of(network: Network, layer: LinearLayer) -> Axes:
    """Which orders a layer's matrix has."""
    rows = _group(network, layer.outputs) or f"{layer.weight}:rows"
    return Axes(layer, rows, _group(network, layer.inputs) or own_columns(layer))


def _group(network: Network, units: Tensor) -> str | None:
    """The group whose units these are, in their order."""
    for group in network.groups:
        if torch.equal(units, torch.arange(group.span.start, group.span.stop)):
            return group.name
    return None


def matrices_of(network: Network, axes: Sequence[Axes]) -> list[Matrix]:
    """The absolute values of the layers' weights, a kernel's together."""
    found = []
    for each in axes:
        held = identity_weight(network.program.state(each.layer.weight).detach(), each.layer.weight)
        weight = each.layer.matrix(held)[0].double().abs().cpu()
        values = weight.unflatten(1, (-1, each.layer.kernel)).sum(2).numpy()
        found.append(Matrix(each.layer.weight, values, each.rows, each.columns))
    return found


@comparable_arithmetic()
def fold_orders(model: nn.Module, network: Network, orders: Mapping[str, np.ndarray]) -> dict[str, dict[int, Tensor]]:
    """Give the units of groups other places in all parameters and buffers that they own parts of, in place.

    Args:
        model: the model that was traced.
        network: its trace.
        orders: by group, for each place the unit that shall sit there.

    Returns:
        For each tensor and axis the old place of what sits at each place now.

    Raises:
        SurgeryError: the model computes something else then (it depends on the order of its units); it is as it was.
    """
    target = torch.arange(network.units + 1)
    for group in network.groups:
        if group.name in orders:
            target[group.span] = group.offset + torch.from_numpy(orders[group.name])
    moves: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    for member in network.members:
        moves[member.tensor][member.axis] = _places(member.units, target)
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    with preserved(model):
        before = run_module(model, network.example)
    _move(held, moves)
    with preserved(model):
        gap, allowed = output_difference(run_module(model, network.example), before)
    if not gap <= allowed:
        _move(held, {name: {axis: places.argsort() for axis, places in axes.items()} for name, axes in moves.items()})
        raise SurgeryError(f"{network.title} depends on the order of its units, so orders can't be folded into it")
    return dict(moves)


def _places(units: Tensor, target: Tensor) -> Tensor:
    """For each place along an axis the old place of what shall sit there. (size of axis,)"""
    occurrence: dict[int, list[int]] = defaultdict(list)
    for place, unit in enumerate(units.tolist()):
        occurrence[unit].append(place)
    taken: defaultdict[int, int] = defaultdict(int)
    found = torch.arange(len(units))
    for place, unit in enumerate(units.tolist()):
        if unit < 0:
            continue
        wanted = int(target[unit])
        found[place] = occurrence[wanted][taken[unit]]
        taken[unit] += 1
    return found


def _move(held: Mapping[str, Tensor], moves: Mapping[str, Mapping[int, Tensor]]) -> None:
    with torch.no_grad():
        for name, axes in moves.items():
            for axis, places in axes.items():
                held[name].copy_(held[name].index_select(axis, places.to(held[name].device)))
