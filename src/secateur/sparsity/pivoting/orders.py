"""Orders of units folded into a network: all consumers read units in the order in which they are produced."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.errors import SurgeryError
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.masking.finite_weights import finite_weight
from secateur.masking.linear_layers import LinearLayer
from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.surgery.verify import output_difference
from secateur.utils.devices import comparable_arithmetic


@dataclass(frozen=True, eq=False)
class Axes:
    """The orders along a layer's matrix: those of groups of units, or its own.

    Args:
        layer: the layer.
        rows: the name of the group whose units the outputs are; else the layer's own order, which is fixed.
        columns: the same of its inputs; where they are no group's, a gather before the layer orders them.
    """

    layer: LinearLayer
    rows: str
    columns: str

    @property
    def gathers(self) -> bool:
        """True where the layer needs a gather for an order of its inputs."""
        return self.columns == own_columns(self.layer)


def own_columns(layer: LinearLayer) -> str:
    """Return the name of a layer's own order of inputs."""
    return f"{layer.weight}:columns"


def axes_of(network: Network, layer: LinearLayer) -> Axes:
    """Return the orders along a layer's matrix."""
    rows = _group(network, layer.outputs) or f"{layer.weight}:rows"
    return Axes(layer, rows, _group(network, layer.inputs) or own_columns(layer))


def _group(network: Network, units: Tensor) -> str | None:
    """Return the name of the group whose units these are, in their order."""
    for group in network.groups:
        if torch.equal(units, torch.arange(group.span.start, group.span.stop)):
            return group.name
    return None


def matrices_of(network: Network, axes: Sequence[Axes]) -> list[Matrix]:
    """Return the absolute values of the layers' weights, summed over each kernel."""
    matrices = []
    for layer_axes in axes:
        layer = layer_axes.layer
        weight = finite_weight(network.program.state(layer.weight).detach(), layer.weight)
        entries = layer.matrix(weight)[0].double().abs().cpu()
        values = entries.unflatten(1, (-1, layer.kernel)).sum(2).numpy()
        matrices.append(Matrix(layer.weight, values, layer_axes.rows, layer_axes.columns))
    return matrices


@comparable_arithmetic()
def fold_orders(model: nn.Module, network: Network, orders: Mapping[str, np.ndarray]) -> dict[str, dict[int, Tensor]]:
    """Reorder the units of groups in all parameters and buffers that have them, in place.

    Args:
        model: the model that was traced.
        network: its trace.
        orders: the unit at each position, by group.

    Returns:
        The former position of the entry at each position, for each tensor and axis.

    Raises:
        SurgeryError: The model then computes something else (it depends on the order of its units); it is not changed.
    """
    target = torch.arange(network.units + 1)
    for group in network.groups:
        if group.name in orders:
            target[group.span] = group.offset + torch.from_numpy(orders[group.name])
    moves: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    for member in network.members:
        moves[member.tensor][member.axis] = _former_positions(member.units, target)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with isolated_evaluation(model):
        output_before = run_module(model, network.example)
    _move(tensors, moves)
    with isolated_evaluation(model):
        gap, tolerance = output_difference(run_module(model, network.example), output_before)
    if not gap <= tolerance:
        inverse_moves = {
            name: {axis: former.argsort() for axis, former in axes.items()} for name, axes in moves.items()
        }
        _move(tensors, inverse_moves)
        raise SurgeryError(f"{network.title} depends on the order of its units, so orders can't be folded into it")
    return dict(moves)


def _former_positions(units: Tensor, target: Tensor) -> Tensor:
    """Return the former position of the entry at each position along an axis (size of axis,)."""
    occurrence: dict[int, list[int]] = defaultdict(list)
    for position, unit in enumerate(units.tolist()):
        occurrence[unit].append(position)
    counts: defaultdict[int, int] = defaultdict(int)
    former = torch.arange(len(units))
    for position, unit in enumerate(units.tolist()):
        if unit >= 0:
            former[position] = occurrence[int(target[unit])][counts[unit]]
            counts[unit] += 1
    return former


def _move(tensors: Mapping[str, Tensor], moves: Mapping[str, Mapping[int, Tensor]]) -> None:
    with torch.no_grad():
        for name, axes in moves.items():
            for axis, former in axes.items():
                tensors[name].copy_(tensors[name].index_select(axis, former.to(tensors[name].device)))
