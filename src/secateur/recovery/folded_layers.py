"""Layers whose weights change during runs, with constants and the batch norms behind them folded into both.

A run for a block problem repeats the same few layers with other weights. A constant that is added to a layer's result,
and a batch norm in evaluation mode behind it, are each a pass over the result and one or two in the backward pass. In
the weight and the bias of the layer they are free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments, with_argument
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.batch_norms import norm_behind
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.targets import batch_norm_affine


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """A layer with a weight that changes, and what is folded into it.

    Args:
        pruned_layer: the kept features and outputs of the layer.
        cut_network: the cut network.
        norm: the batch norm that is folded into the weight and the bias, or None.
        has_bias: whether a constant is added as the operator's bias.
    """

    pruned_layer: PrunedLayer
    cut_network: EmbeddedPrunedNetwork
    norm: Node | None
    has_bias: bool

    @staticmethod
    def of(pruned_layer: PrunedLayer, cut_network: EmbeddedPrunedNetwork) -> "FoldedLayer":
        """Return the layer, with the batch norm behind it if it can be folded."""
        layer, kind = pruned_layer.layer, rule_of(pruned_layer.layer.node).layer
        has_bias = pruned_layer.has_constant and layer.inner == 1 and {"weight", "bias"} <= arguments(layer.node).keys()
        outputs_first = kind == "convolution" or (kind == "linear" and layer.node.meta["val"].dim() == 2)
        is_foldable = has_bias and outputs_first and layer.kind != "new"
        return FoldedLayer(pruned_layer, cut_network, norm_behind(layer.node) if is_foldable else None, has_bias)

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """The batch norm as a factor and a shift of each channel, (channels,) each."""
        assert self.norm is not None
        return batch_norm_affine(self.norm, self.cut_network.network, lambda name: self.cut_network.state[name])

    def tensors(self, change: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the weight after a change, in compact form, and the bias or constant if there can be one.

        Args:
            change: of the layer's matrices (groups, features + 1, outputs).
        """
        pruned_layer, cut_network = self.pruned_layer, self.cut_network
        layer = pruned_layer.layer
        compact, kept = cut_network.compact_layer(layer.node), cut_network.state.compact(layer.weight)
        is_read = compact is not None or kept.shape == cut_network.network.program.state(layer.weight).shape
        if is_read and pruned_layer.has_all_of(kept):
            weight = pruned_layer.kept_weight(kept, change)
        else:
            weight = pruned_layer.weight(cut_network.state[layer.weight], change)
            weight = weight if compact is None else compact.weight_of(weight)
        if not pruned_layer.has_constant:
            return weight, None
        constant = pruned_layer.constant_change(change)
        if not self.has_bias:
            return weight, constant.to(weight.dtype)
        if layer.kind == "bias":
            constant = constant + cut_network.state[layer.constant].to(constant)
        if self.norm is not None:
            scale, shift = self._affine
            constant = constant * scale + shift
            scale = scale if compact is None else scale.index_select(0, compact.outputs.to(scale.device))
            weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return weight, constant.to(weight.dtype)

    def overrides(self, handlers: Mapping[Node, OpOverride], constant: Tensor | None) -> dict[Node, OpOverride]:
        """Return the overrides by which the layer gets its constant, and a batch norm that is folded is left out.

        Args:
            handlers: the overrides otherwise.
            constant: the bias or the constant, as `tensors` returns it.
        """
        layer = self.pruned_layer.layer
        if constant is None:
            return {}
        if not self.has_bias:
            return {
                layer.node: self.cut_network.bias_addition(handlers.get(layer.node), constant, layer.dim, layer.outputs)
            }
        overrides: dict[Node, OpOverride] = {layer.node: _bias_override(handlers.get(layer.node), layer.node, constant)}
        if self.norm is not None:
            overrides[self.norm] = _identity_override(handlers.get(self.norm), self.norm)
        return overrides


def _bias_override(handler: OpOverride | None, node: Node, bias: Tensor) -> OpOverride:
    """Return the override of an operator with another bias, in the type in which it computes."""

    def run(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x: Tensor = args[0]
        args, kwargs = with_argument(node, args, kwargs, "bias", bias.to(x.dtype))
        return handler(target, args, kwargs) if handler is not None else target(*args, **kwargs)

    return run


def _identity_override(handler: OpOverride | None, node: Node) -> OpOverride:
    """Return the override of an operator that returns its first argument, in the form of its other override."""
    gives_several = isinstance(node.meta.get("val"), tuple | list)  # a norm with the statistics of the batch

    def first_argument(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (x,) if gives_several else x

    def run(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return handler(first_argument, args, kwargs) if handler is not None else first_argument(*args)

    return run
