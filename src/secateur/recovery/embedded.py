"""The cut network embedded in the dense one's program: tensors of dense size, in which removed entries are inactive.

Every operator of the cut network then has its counterpart in the dense one. Values that are fitted here are written
back to the small model.
"""

from collections.abc import Container, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.coupling.network import Kept, Network
from secateur.coupling.residual_blocks import is_inside, removed_blocks
from secateur.graph.model_copies import copy_sharing_parameters
from secateur.graph.operators import module_path
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.ablation import MeanAblation, Means
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.masking.operand_overrides import as_factor
from secateur.masking.parameter_copies import ParameterCopy, parameter_copies
from secateur.recovery.compact_layers import CompactLayer
from secateur.recovery.compact_values import Axes, compact_axes, compact_operator
from secateur.recovery.cut_tensors import cut_tensor_names, renamed_tensors, share_memory
from secateur.recovery.embedded_state import EmbeddedState, FixedValues, expanded_vector
from secateur.surgery.recipe import Recipe, kept_positions
from secateur.utils.dtypes import to_widest


@dataclass(frozen=True, eq=False)
class EmbeddedPrunedNetwork:
    """A cut network within the dense one's program.

    Args:
        network: the dense network's trace.
        mask: which units stay (units + 1,).
        state: its parameters and buffers by name, read and written in the dense shapes; repairs replace them.
        biases: those that were added where there were none, in the dense lengths.
        means: of absent units, where they are not in the biases yet; empty where they are, or nothing stands for them.
        layers: the layers of the dense network that can be refitted.
        alike_until: the position of an operator before which it is known to compute what the dense network computes.
        cut_names: the names in the cut model of its tensors, by their names in the dense one.
    """

    network: Network
    mask: Tensor
    state: EmbeddedState
    biases: dict[str, Tensor]
    means: Means = field(default_factory=dict)
    layers: Sequence[LinearLayer] = ()
    alike_until: int = 0
    cut_names: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(small: nn.Module, network: Network, recipe: Recipe) -> "EmbeddedPrunedNetwork":
        """Embed a cut network."""
        program = network.program
        cut_names = cut_tensor_names(network, recipe)
        tensors = renamed_tensors(small, cut_names)
        mask = network.mask(recipe.kept)
        names = set(program.state_names.values())
        compact = {name: tensors[name].detach() if name in tensors else program.state(name).detach() for name in names}
        slices = {name: axes for name, axes in recipe.slices.items() if name in tensors}
        state = EmbeddedState(program, compact, slices, slices)
        biases = {}
        for consumer in network.new_biases():
            if consumer.fold is not None and consumer.fold.tensor in tensors:
                stays = torch.nonzero(mask[consumer.fold.outputs]).flatten()
                bias = tensors[consumer.fold.tensor].detach()
                biases[consumer.fold.tensor] = expanded_vector(bias, len(consumer.fold.outputs), stays)
        return EmbeddedPrunedNetwork(network, mask, state, biases, layers=layers_of(network), cut_names=cut_names)

    @staticmethod
    def of_kept(
        network: Network, kept: Kept, means: Means | None = None, layers: Sequence[LinearLayer] | None = None
    ) -> "EmbeddedPrunedNetwork":
        """Return the dense network with a mask of units.

        Args:
            network: the dense network's trace.
            kept: the units that are kept, by group.
            means: of absent units; None where nothing stands for them.
            layers: those that can be refitted, where they are known already.
        """
        program, mask = network.program, network.mask(kept)
        dense = {name: program.state(name).detach() for name in set(program.state_names.values())}
        slices = {} if means else kept_positions(network, mask, removed_blocks(network, mask))
        state = EmbeddedState(program, dense, slices)
        folds = [consumer.fold for consumer in network.new_biases() if consumer.fold is not None]
        biases = {fold.tensor: program.state(fold.weight).new_zeros(len(fold.outputs)) for fold in folds}
        layers = layers_of(network) if layers is None else layers
        cut_network = EmbeddedPrunedNetwork(network, mask, state, biases, means or {}, layers)
        return replace(cut_network, alike_until=cut_network.first_cut)

    @cached_property
    def first_cut(self) -> int:
        """The position of the first operator that lacks units."""
        position = self.network.program.position
        missing = [consumer.node for consumer in self.network.consumers if not bool(self.mask[consumer.units].all())]
        return min((position[node] for node in missing), default=len(position))

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """The paths of removed blocks."""
        return removed_blocks(self.network, self.mask)

    def is_removed(self, node: Node) -> bool:
        """Return whether an operator is in a removed block."""
        return bool(self.dropped) and is_inside(module_path(node), self.dropped)

    def fixed(self, start: int = 0, replaced: Mapping[str, Tensor] | None = None) -> FixedValues:
        """Return parameters, buffers and constants by placeholder, and the copies of them that exist before a position.

        Args:
            start: the position of the operator that runs next.
            replaced: tensors by name, in the place of those of the cut network.
        """
        program = self.network.program
        copies = {
            node: copy
            for node, copy in self._parameter_copies.items()
            if program.position[node] < start <= program.last_use[node]
        }
        return FixedValues(program, self.state, self._compact_weights, replaced or {}, copies)

    @cached_property
    def _parameter_copies(self) -> dict[Node, ParameterCopy]:
        return parameter_copies(self.network.program)

    @cached_property
    def _compact_weights(self) -> frozenset[Node]:
        """The placeholders of weights that layers read in the cut shape."""
        axes = {layer: self.state.axes(layer.layer.weight) for layer in self._compact_layers.values()}
        weights = {layer.weight_node for layer, kept in axes.items() if layer.is_cut_along(kept)}
        return frozenset(weights & self.network.program.state_names.keys())

    def handlers(self) -> dict[Node, OpOverride]:
        """Return the overrides of operators in the cut network."""
        overrides = dict(self._compact[0])
        for consumer in self.network.new_biases():
            if consumer.fold is not None and consumer.fold.tensor in self.biases:
                overrides[consumer.node] = self.bias_addition(
                    overrides.get(consumer.node), self.biases[consumer.fold.tensor], consumer.dim, consumer.fold.outputs
                )
        return overrides

    def bias_addition(self, handler: OpOverride | None, bias: Tensor, dim: int, outputs: Tensor) -> OpOverride:
        """Return the override that adds a bias to an operator's result.

        Args:
            handler: the operator as it is otherwise.
            bias: in the dense length.
            dim: the result's axis.
            outputs: for each entry along it the number of its unit.
        """
        stays = torch.nonzero(self.mask[outputs]).flatten()

        def add_bias(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = handler(target, args, kwargs) if handler is not None else target(*args, **kwargs)
            summand = bias if result.shape[dim] == len(bias) else bias.index_select(0, stays.to(bias.device))
            return result + as_factor(summand[None].to(result), result, dim, None)

        return add_bias

    def spread(self, node: Node, value: Tensor, dim: int | None = None) -> Tensor:
        """Expand a value of the cut network to all positions, zero where nothing is kept.

        Args:
            node: the operator that gives it.
            value: the value, or what was made of it.
            dim: the axis of the value; by default as the operator gives it.
        """
        axis = self._compact[1].get(node)
        return value if axis is None else axis.spread(value, axis.dim if dim is None else dim)

    def compact_layer(self, node: Node) -> CompactLayer | None:
        """Return the layer that computes kept positions alone in place of an operator; None if there is none."""
        return self._compact_layers.get(node)

    @cached_property
    def _compact(self) -> tuple[dict[Node, OpOverride], Axes]:
        """Return the compact overrides, and the axes of values that may be compact."""
        ablation = MeanAblation(self.means).handlers(self.network, self.mask[None])
        compact_layers = self._compact_layers
        axes, compact = compact_axes(self.network.program, compact_layers, ablation.keys() - compact_layers.keys())
        handlers: dict[Node, OpOverride] = {**ablation}
        for node, axis in axes.items():
            handlers[node] = compact_operator(node, axis, node in compact)
        for node, layer in compact_layers.items():
            handlers[node] = replace(layer, spreads=node not in compact)
        return handlers, compact

    @cached_property
    def _compact_layers(self) -> dict[Node, CompactLayer]:
        """Return the layers that compute kept positions alone."""
        if self.means:
            return {}
        kept_layers = [layer for layer in self.layers if not self.is_removed(layer.node)]
        compact_layers = {layer.node: CompactLayer.of(layer, self.mask) for layer in kept_layers}
        return {node: layer for node, layer in compact_layers.items() if layer is not None}

    def has_constant(self, layer: LinearLayer) -> bool:
        """Return whether a constant can be added to a layer's result."""
        return layer.constant in (self.biases if layer.kind == "new" else self.state)

    def constant(self, layer: LinearLayer) -> Tensor | None:
        """Return the bias of a layer, in the dense length; None if it has none."""
        if layer.kind == "new":
            return self.biases.get(layer.constant)
        return self.state[layer.constant] if layer.kind == "bias" else None

    def add(self, layer: LinearLayer, constant: Tensor) -> None:
        """Add a constant (outputs,) to a layer's result, if it can have one."""
        holder: MutableMapping[str, Tensor] = self.biases if layer.kind == "new" else self.state
        current, sign = holder[layer.constant], -1 if layer.kind == "running_mean" else 1
        holder[layer.constant] = (to_widest(current) + sign * constant.to(to_widest(current))).to(current.dtype)

    def write(self, small: nn.Module) -> None:
        """Copy this state to the small model."""
        tensors = renamed_tensors(small, self.cut_names)
        for name, value in self._compact_tensors(tensors):
            tensors[name].data.copy_(value)

    def copy_with_state(self, small: nn.Module) -> nn.Module:
        """Return a copy of the small model with this state; its tensors share their memory with the state."""
        copy = copy_sharing_parameters(small)
        tensors = renamed_tensors(copy, self.cut_names)
        for name, value in self._compact_tensors(tensors):
            share_memory(tensors[name], value)
        return copy

    def _compact_tensors(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the kept entries of each tensor that is among some names."""
        for name in self.state:
            if name in names:
                yield name, self.state.compact(name)
        for name, bias in self.biases.items():
            if name in names:
                yield name, bias.index_select(0, self._stays(name).to(bias.device))

    def _stays(self, bias: str) -> Tensor:
        folds = (consumer.fold for consumer in self.network.new_biases())
        outputs = next(fold.outputs for fold in folds if fold is not None and fold.tensor == bias)
        return torch.nonzero(self.mask[outputs]).flatten()
