"""The derivative of the loss by each unit's gate, from nothing but the gradients that a training has anyway."""

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.network.layers import Layer, layers_of, norms_of
from secateur.network.program import arguments
from secateur.network.units import Group, Network


class Slopes:
    """Where the gates of a network's groups can be read from gradients.

    Behind a batch norm a gate's derivative is gamma dE/dgamma + beta dE/dbeta (Molchanov et al. 2019, section 3.2); a
    group without any has its gate at the readers, where it is the sum of w dE/dw over the weights that read the unit.

    Args:
        network: the traced network.
        groups: those that are asked for.
    """

    def __init__(self, network: Network, groups: list[Group]) -> None:
        self.network = network
        names = network.program.state_names
        self.norms: list[tuple[Tensor, tuple[str, ...]]] = []
        for node, units in norms_of(network).items():
            given = arguments(node)
            held = tuple(names[given[part]] for part in ("weight", "bias") if given.get(part) is not None)
            if held:
                self.norms.append((units, held))
        self.layers: list[Layer] = [layer for layer in layers_of(network) if layer.reads]
        self.behind = {group.name: [norm for norm in self.norms if group.owns(norm[0])] for group in groups}
        read = {group.name for group in groups if any(group.owns(layer.inputs) for layer in self.layers)}
        gated = (group for group in groups if self.behind[group.name] or group.name in read)
        self.groups = [group for group in gated if group.multiple == 1]  # others can't go one by one
        self.without = [group.name for group in groups if group not in self.groups]

    def squares(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The squared derivative by each unit's gate, the mean over the batch norms that share it. (units,) by group"""
        at_norms = [self._scattered(units, _norm_slopes(names, parameters)) for units, names in self.norms]
        own = [self._scattered(units, torch.ones(len(units))) for units, _ in self.norms]
        at_readers = torch.zeros(self.network.units + 1, dtype=torch.float64)
        for layer in self.layers:
            at_readers += self._reader_slopes(layer, parameters)
        found = {}
        for group in self.groups:
            if self.behind[group.name]:
                total = torch.stack([each[group.span].square() for each in at_norms]).sum(0)
                found[group.name] = total / torch.stack([each[group.span] for each in own]).sum(0).clamp_min(1)
            else:
                found[group.name] = at_readers[group.span].square()
        return found

    def _reader_slopes(self, layer: Layer, parameters: Mapping[str, Tensor]) -> Tensor:
        weight = parameters[layer.weight]
        if weight.grad is None:
            return torch.zeros(self.network.units + 1, dtype=torch.float64)
        rows = layer.matrix((weight.detach() * weight.grad).double()).sum(1).flatten()  # (groups * features,)
        return self._scattered(layer.inputs.repeat_interleave(layer.kernel), rows)

    def _scattered(self, units: Tensor, values: Tensor) -> Tensor:
        """Values summed into units. (units + 1,)"""
        total = torch.zeros(self.network.units + 1, dtype=torch.float64)
        return total.index_add_(0, units % (self.network.units + 1), values.cpu().double())


def _norm_slopes(names: tuple[str, ...], parameters: Mapping[str, Tensor]) -> Tensor:
    parts = [parameters[name] for name in names]
    return torch.stack([(p.detach() * (0 if p.grad is None else p.grad)).double() for p in parts]).sum(0)
