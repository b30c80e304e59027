"""The targets of a layer's output, given what the dense network makes of it.

The batch norm behind a layer may differ from the dense network's. Where the output is added to a residual stream, the
layer can correct the error of the stream. Where the nonlinearity behind cuts off values beyond a bound, any value
beyond it is equally good, and the output is free there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.op_rule import Bounds
from secateur.coupling.rules.registry import functional_rule_of, rule_of
from secateur.graph.cursor import Values
from secateur.graph.operators import arguments, operator_name
from secateur.masking.batch_norms import norm_behind
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.target_rows import DenseRows, TargetInterval

LEAST_SCALE = 1e-3
State = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class OutputContext:
    """The operators behind a layer's output.

    Args:
        layer: the operator.
        norm: the batch norm that alone uses it, or None.
        other: what it is added to, if that is there before the layer runs, or None.
        pre_activation: the operator whose result the nonlinearity behind gets: the sum, the batch norm, or the layer.
        low, high: what that nonlinearity cuts off; infinite where there is none.
    """

    layer: Node
    norm: Node | None
    other: Node | None
    pre_activation: Node
    low: float
    high: float

    @property
    def cuts_off(self) -> bool:
        """True if a nonlinearity behind the layer clips."""
        return self.low > -inf or self.high < inf

    @property
    def has_affine_of_outputs(self) -> bool:
        """True if the batch norm behind has a factor and a shift for each output, the same at all places."""
        # the outputs of a linear layer lie along the last axis, the channels of its batch norm along the second
        is_convolution = rule_of(self.layer).layer in ("convolution", "transposed convolution")
        return self.norm is None or is_convolution or self.layer.meta["val"].dim() == 2

    def dense_rows(
        self, rows: Callable[[Tensor], Tensor], dense: Values, cut_network: EmbeddedPrunedNetwork
    ) -> DenseRows:
        """Return the dense network's values at some positions, arguments as for `target_interval`."""
        output = rows(dense[self.layer])
        scale, shift = self._factor_and_shift(output, rows, dense, cut_network, cut_network.network.program.state)
        value = output if self.norm is None else output * scale + shift
        return DenseRows(output, value if self.other is None else value + rows(dense[self.other]))

    def target_interval(
        self,
        rows: Callable[[Tensor], Tensor],
        dense: Values,
        cut: Values,
        cut_network: EmbeddedPrunedNetwork,
        dense_rows: DenseRows | None = None,
        has_interval: bool = True,
    ) -> TargetInterval:
        """Return the target of the cut network's output at some positions, from the dense layer's output.

        Args:
            rows: of a value in the shape of the output what lies at these places (rows, outputs).
            dense: the dense network's values, the layer's own output among them.
            cut: those of the cut network.
            cut_network: the cut network.
            dense_rows: the dense network's values at these places, if known; `dense` may be empty then if
                `has_affine_of_outputs`.
            has_interval: whether outputs that the nonlinearity behind clips have an interval; by default they do.
        """
        dense_rows = self.dense_rows(rows, dense, cut_network) if dense_rows is None else dense_rows
        output, dense_value = dense_rows.output, dense_rows.value
        scale, shift = self._factor_and_shift(output, rows, dense, cut_network, lambda name: cut_network.state[name])
        other = None if self.other is None else cut_network.spread(self.other, rows(cut[self.other]), -1)
        other_rows = torch.zeros(()).to(output) if other is None else other
        is_silent = scale.abs() <= LEAST_SCALE * scale.abs().max()  # all where all factors are zero
        safe_scale = torch.where(is_silent, 1.0, scale)

        def to_output(value: Tensor) -> Tensor:
            return torch.where(is_silent, output, (value - other_rows - shift) / safe_scale)

        target = to_output(dense_value)
        if not (self.cuts_off and has_interval):
            return TargetInterval(target, target, target)
        below, above = dense_value <= self.low, dense_value >= self.high
        ends = (
            torch.where(below, -inf, dense_value.clamp(max=self.high)),
            torch.where(above, inf, dense_value.clamp(min=self.low)),
        )
        first_end, last_end = (to_output(end) for end in ends)  # a negative scale turns them round
        return TargetInterval(target, torch.minimum(first_end, last_end), torch.maximum(first_end, last_end))

    def _factor_and_shift(
        self,
        output: Tensor,
        rows: Callable[[Tensor], Tensor],
        dense: Values,
        cut_network: EmbeddedPrunedNetwork,
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift of each output. (outputs,), or (rows, outputs) if rows differ"""
        if self.norm is None:
            return torch.ones(()).to(output), torch.zeros(()).to(output)
        pair = batch_norm_affine(self.norm, cut_network.network, state)
        if self.has_affine_of_outputs:
            return pair
        value = dense[self.layer]
        lengths = (1, -1, *[1] * (value.dim() - 2))
        factor, constant = (rows(values.reshape(lengths).expand_as(value)) for values in pair)
        return factor, constant


def batch_norm_affine(norm: Node, network: Network, state: State) -> tuple[Tensor, Tensor]:
    """Return a batch norm as a factor and a shift of each channel. (channels,)"""
    by_name, names = arguments(norm), network.program.state_names
    scale = (state(names[by_name["running_var"]]).detach() + by_name["eps"]).rsqrt()
    if isinstance(by_name["weight"], Node):
        scale = scale * state(names[by_name["weight"]]).detach()
    shift = -state(names[by_name["running_mean"]]).detach() * scale
    if isinstance(by_name["bias"], Node):
        shift = shift + state(names[by_name["bias"]]).detach()
    return scale, shift


def output_context(network: Network, layer: LinearLayer) -> OutputContext:
    """Return the context of a layer's output."""
    norm = norm_behind(layer.node)
    at = _past_dropout(norm or layer.node)
    added_value = _added_value(network, layer, at)
    if added_value is not None:
        at = _past_dropout(next(iter(at.users)))
    user = next(iter(at.users)) if len(at.users) == 1 else None
    return OutputContext(layer.node, norm, added_value, at, *clipped_bounds(user))


def clipped_bounds(user: Node | None) -> Bounds:
    """Return the bounds beyond which an operator's result is constant, infinite where there are none."""
    clips = None if user is None else functional_rule_of(user).clips
    return (-inf, inf) if user is None or clips is None else clips(user)


def _past_dropout(node: Node) -> Node:
    while len(node.users) == 1 and operator_name(next(iter(node.users))) == "dropout":
        node = next(iter(node.users))
    return node


def _added_value(network: Network, layer: LinearLayer, at: Node) -> Node | None:
    """Return the value to which an operator's result is added, if it is computed before the layer."""
    if len(at.users) != 1:
        return None
    (user,) = at.users
    other_operand: Any = next((operand for operand in user.args if operand is not at), None)
    if rule_of(user).sums != "add" or user.kwargs.get("alpha", 1) != 1 or not isinstance(other_operand, Node):
        return None
    position = network.program.position
    same_shape = getattr(other_operand.meta.get("val"), "shape", None) == layer.node.meta["val"].shape
    is_before = other_operand.op == "call_function" and position[other_operand] < position[layer.node]
    return other_operand if same_shape and is_before else None
