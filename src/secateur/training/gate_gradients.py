"""The derivative of the loss by each unit's gate, from nothing but the gradients that a training has anyway."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Group, Network
from secateur.graph.operators import arguments
from secateur.masking.batch_norms import norms_of
from secateur.masking.gate_positions import GatePosition, gate_positions
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.training.block_gate_gradients import BlockTerms, Term, Terms
from secateur.utils.dtypes import to_widest

Parameters = Mapping[str, Tensor]


class TrainingGateGradients:
    """Where the gates of a network's groups can be read from gradients.

    Gates stand where `masking/gate_positions.py` puts them. Behind a batch norm the derivative is gamma dE/dgamma +
    beta dE/dbeta (Molchanov et al. 2019, section 3.2), before the readers the sum of w dE/dw over the weights that
    read the unit, and behind the blocks of a residual stage a sum of such terms (`block_gradients.py`). Where the
    activation behind an addition is none that the terms pass (GELU, SiLU), the gate stands before the readers
    instead.

    Args:
        network: the traced network.
        groups: those that are asked for.
    """

    def __init__(self, network: Network, groups: list[Group]) -> None:
        self.network = network
        self.layers: dict[Node, LinearLayer] = {layer.node: layer for layer in layers_of(network)}
        self._norms = {node: (units, _affine(network, node)) for node, units in norms_of(network).items()}
        self._norms = {node: found for node, found in self._norms.items() if found[1]}
        places = gate_positions(network)
        terms = BlockTerms(self._norms.keys(), self.layers, {consumer.node for consumer in network.consumers})
        self._blocks = [(place, terms.of(place.node)) for place in places.blocks]
        self._at_readers = places.at_readers.clone()
        self._count = places.count
        for place, found in self._blocks:
            if found is None:
                self._move_to_readers(place)
        without_affine = (place for place in places.norms if place.node not in self._norms)
        for place in without_affine:
            self._move_to_readers(place)
        self._norm_places = [place for place in places.norms if place.node in self._norms]
        consumers = [layer for layer in self.layers.values() if layer.reads]
        read = {group.name for group in groups if any(group.owns(layer.inputs) for layer in consumers)}
        gated = (group for group in groups if group.name in read or not bool(self._at_readers[group.span].any()))
        self.groups = [group for group in gated if group.multiple == 1]  # others can't go one by one

    def squares(self, parameters: Parameters) -> dict[str, Tensor]:
        """The squared derivative by each unit's gate, divided by the number of its places. (units,) by group"""
        known: dict[Term, Tensor] = {}
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        for place, terms in self._blocks:
            if terms is not None:
                _add(total, place, self._sum(terms, parameters, known))
        norms = torch.zeros_like(total)
        for place in self._norm_places:
            _add(norms, place, self._value(Term("norm", place.node), parameters, known).square())
        if any(bool(self._at_readers[group.span].any()) for group in self.groups):
            consumers = [Term("reads", layer.node) for layer in self.layers.values() if layer.reads]
            at_readers = sum(self._value(term, parameters, known) for term in consumers)
            total = torch.where(self._at_readers, at_readers, total)
            norms[self._at_readers] = 0
        squares = (total.square() + norms) / self._count
        return {group.name: squares[group.span] for group in self.groups}

    def _move_to_readers(self, place: GatePosition) -> None:
        units = place.units[place.units >= 0]
        self._at_readers[units] = True
        self._count[units] = 1

    def _sum(self, terms: Terms, parameters: Parameters, known: dict[Term, Tensor]) -> Tensor:
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        for term, times in terms.items():
            total += times * self._value(term, parameters, known)
        return total

    def _value(self, term: Term, parameters: Parameters, known: dict[Term, Tensor]) -> Tensor:
        """A term of every unit, read once for all gates. (units + 1,)"""
        if term not in known:
            known[term] = self._read(term, parameters)
        return known[term]

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
        """Values summed into units. (units + 1,)"""
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        return total.index_add_(0, units % (self.network.units + 1), values.cpu().double())


def _affine(network: Network, norm: Node) -> tuple[str, ...]:
    """The names of a batch norm's weight and bias, as far as it has them."""
    given = arguments(norm)
    nodes = [given[part] for part in ("weight", "bias") if given.get(part) is not None]
    return tuple(network.program.state_names[node] for node in nodes)


def _product(name: str, parameters: Parameters) -> Tensor:
    """A parameter times its gradient, entry by entry; zeros where it has none."""
    parameter = parameters[name]
    gradient = parameter.grad
    if gradient is None:
        return to_widest(torch.zeros_like(parameter))
    return to_widest(parameter.detach()) * to_widest(gradient)


def _add(total: Tensor, place: GatePosition, values: Tensor) -> None:
    units = place.units[place.units >= 0]
    total[units] += values[units]
