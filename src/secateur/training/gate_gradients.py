"""The derivative of the loss by each unit's gate, from the gradients of parameters that a training computes."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import UnitAxis
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.graph.operators import arguments
from secateur.masking.batch_norms import norms_of
from secateur.masking.gate_positions import gate_positions
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.training.block_gate_gradients import BlockTerms, Term, Terms
from secateur.utils.dtypes import to_widest

Parameters = Mapping[str, Tensor]


class TrainingGateGradients:
    """The gates of a network's units, and their derivatives read from gradients of parameters.

    Gates are at the positions of `masking/gate_positions.py`. Behind a batch norm the derivative is gamma dE/dgamma +
    beta dE/dbeta (Molchanov et al. 2019, section 3.2), before the consumers the sum of w dE/dw over the weights that
    read the unit, and behind the blocks of a residual stage a sum of such terms (`block_gate_gradients.py`). Where the
    activation behind an addition is none that the terms pass (GELU, SiLU), the gate is before the consumers instead.

    Args:
        network: the traced network.
        groups: the groups whose gates are read.

    Attributes:
        groups: the groups whose gates can be read and whose units can be removed one by one.
    """

    def __init__(self, network: Network, groups: list[Group]) -> None:
        self.network = network
        self.layers: dict[Node, LinearLayer] = {layer.node: layer for layer in layers_of(network)}
        norms = {node: (units, _affine_parameters(network, node)) for node, units in norms_of(network).items()}
        self._norms = {node: (units, names) for node, (units, names) in norms.items() if names}
        positions = gate_positions(network)
        terms = BlockTerms(self._norms.keys(), self.layers, {consumer.node for consumer in network.consumers})
        self._blocks = [(position, terms.of(position.node)) for position in positions.blocks]
        self._at_consumers = positions.at_readers.clone()
        self._count = positions.count
        without_terms = [position for position, block_terms in self._blocks if block_terms is None]
        without_affine = [position for position in positions.norms if position.node not in self._norms]
        for position in (*without_terms, *without_affine):
            self._move_to_consumers(position)
        self._norm_positions = [position for position in positions.norms if position.node in self._norms]
        consumers = [layer for layer in self.layers.values() if layer.reads]
        names_read = {group.name for group in groups if any(group.owns(layer.inputs) for layer in consumers)}
        gated_groups = (
            group for group in groups if group.name in names_read or not bool(self._at_consumers[group.span].any())
        )
        self.groups = [
            group for group in gated_groups if group.multiple == 1
        ]  # units of others cannot be removed one by one

    def squares(self, parameters: Parameters) -> dict[str, Tensor]:
        """Return the squared derivative by each unit's gate, over the number of its positions, by group (units,)."""
        known_values: dict[Term, Tensor] = {}
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        for position, terms in self._blocks:
            if terms is not None:
                _add(total, position, self._sum(terms, parameters, known_values))
        norms = torch.zeros_like(total)
        for position in self._norm_positions:
            _add(norms, position, self._value(Term("norm", position.node), parameters, known_values).square())
        if any(bool(self._at_consumers[group.span].any()) for group in self.groups):
            consumers = [Term("reads", layer.node) for layer in self.layers.values() if layer.reads]
            at_consumers = sum(self._value(term, parameters, known_values) for term in consumers)
            total = torch.where(self._at_consumers, at_consumers, total)
            norms[self._at_consumers] = 0
        squares = (total.square() + norms) / self._count
        return {group.name: squares[group.span] for group in self.groups}

    def _move_to_consumers(self, position: UnitAxis) -> None:
        units = position.units[position.units >= 0]
        self._at_consumers[units] = True
        self._count[units] = 1

    def _sum(self, terms: Terms, parameters: Parameters, known_values: dict[Term, Tensor]) -> Tensor:
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        for term, times in terms.items():
            total += times * self._value(term, parameters, known_values)
        return total

    def _value(self, term: Term, parameters: Parameters, known_values: dict[Term, Tensor]) -> Tensor:
        """Return a term of every unit, computed once for all gates (units + 1,)."""
        if term not in known_values:
            known_values[term] = self._read(term, parameters)
        return known_values[term]

    def _read(self, term: Term, parameters: Parameters) -> Tensor:
        if term.kind == "norm":
            units, names = self._norms[term.node]
            return self._scattered(units, torch.stack([_product(name, parameters) for name in names]).sum(0))
        layer = self.layers[term.node]
        products = layer.matrix(_product(layer.weight, parameters))  # (groups, outputs, features)
        if term.kind == "reads":
            return self._scattered(layer.inputs.repeat_interleave(layer.kernel), products.sum(1).flatten())
        rows = products.sum(2).flatten()
        bias = arguments(layer.node).get("bias")
        if bias is not None:
            rows = rows + _product(self.network.program.state_names[bias], parameters)
        return self._scattered(layer.outputs, rows)

    def _scattered(self, units: Tensor, values: Tensor) -> Tensor:
        """Return the sums of values by unit (units + 1,)."""
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        return total.index_add_(0, units % (self.network.units + 1), values.cpu().double())


def _affine_parameters(network: Network, norm: Node) -> tuple[str, ...]:
    """Return the names of a batch norm's weight and bias, as far as it has them."""
    args = arguments(norm)
    nodes = [args[name] for name in ("weight", "bias") if args.get(name) is not None]
    return tuple(network.program.state_names[node] for node in nodes)


def _product(name: str, parameters: Parameters) -> Tensor:
    """Return a parameter times its gradient, entry by entry; zeros where it has none."""
    parameter = parameters[name]
    gradient = parameter.grad
    if gradient is None:
        return to_widest(torch.zeros_like(parameter))
    return to_widest(parameter.detach()) * to_widest(gradient)


def _add(total: Tensor, position: UnitAxis, values: Tensor) -> None:
    units = position.units[position.units >= 0]
    total[units] += values[units]
