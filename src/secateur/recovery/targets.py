"""What a layer's output should be, so that what comes of it is as in the dense network.

A batch norm behind may not be the dense network's any more. A sum that the output goes into may have another part,
the residual stream, which is there already: the layer can make good its error. Where the nonlinearity behind cuts off
what is below or above a bound, any value beyond the bound is as good as another, and the output is free there.
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
from secateur.graph.operators import arguments, operator_name
from secateur.masking.batch_norms import norm_behind
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import Values

LEAST_SCALE = 1e-3
State = Callable[[str], Tensor]


@dataclass(frozen=True)
class TargetInterval:
    """What a layer's output should be: the dense one's, or anything between bounds where that comes to the same.

    Args:
        wanted, least, most: at some places (rows, outputs).
    """

    wanted: Tensor
    least: Tensor
    most: Tensor


@dataclass(frozen=True, eq=False)
class OutputContext:
    """What comes of a layer's output.

    Args:
        layer: the operator.
        norm: the batch norm that alone uses it, or None.
        other: what it is added to, if that is there before the layer runs, or None.
        seen: the operator whose result the nonlinearity behind gets: the sum, the batch norm, or the layer.
        low, high: what that nonlinearity cuts off; infinite where there is none.
    """

    layer: Node
    norm: Node | None
    other: Node | None
    seen: Node
    low: float
    high: float

    @property
    def cuts_off(self) -> bool:
        return self.low > -inf or self.high < inf

    def goal(
        self, rows: Callable[[Tensor], Tensor], dense: Values, cut: Values, within: EmbeddedPrunedNetwork
    ) -> TargetInterval:
        """From the dense layer's output, what the cut network's should be, at some places.

        Args:
            rows: of a value in the shape of the output what lies at these places (rows, outputs).
            dense: the dense network's values, the layer's own output among them.
            cut: those of the cut network.
            within: the cut network.
        """
        output = rows(dense[self.layer])
        scale, shift = self._affine(rows, dense[self.layer], within, lambda name: within.state[name])
        dense_scale, dense_shift = self._affine(rows, dense[self.layer], within, within.network.program.state)
        seen, lacking = output * dense_scale + dense_shift, torch.zeros(()).to(output)
        if self.other is not None:
            seen, lacking = seen + rows(dense[self.other]), within.spread(self.other, rows(cut[self.other]), -1)
        silent = scale.abs() < LEAST_SCALE * scale.abs().max()
        safe = torch.where(silent, 1.0, scale)

        def own(value: Tensor) -> Tensor:
            return torch.where(silent, output, (value - lacking - shift) / safe)

        wanted = own(seen)
        if not self.cuts_off:
            return TargetInterval(wanted, wanted, wanted)
        below, above = seen <= self.low, seen >= self.high
        ends = (
            torch.where(below, -inf, seen.clamp(max=self.high)),
            torch.where(above, inf, seen.clamp(min=self.low)),
        )
        first, last = (own(each) for each in ends)  # a negative scale turns them round
        return TargetInterval(wanted, torch.minimum(first, last), torch.maximum(first, last))

    def _affine(
        self, rows: Callable[[Tensor], Tensor], value: Tensor, within: EmbeddedPrunedNetwork, state: State
    ) -> tuple[Tensor, Tensor]:
        """The factor and the shift of each of the layer's outputs. (outputs,), or (rows, outputs) where rows differ."""
        if self.norm is None:
            return torch.ones(()).to(value), torch.zeros(()).to(value)
        pair = _affine(self.norm, within.network, state)
        if value.dim() == 2 or rule_of(self.layer).layer in ("convolution", "transposed convolution"):
            return pair
        # the outputs of a linear layer lie along the last axis, the channels of its batch norm along the second
        lengths = (1, -1, *[1] * (value.dim() - 2))
        factor, constant = (rows(each.reshape(lengths).expand_as(value)) for each in pair)
        return factor, constant


def _affine(norm: Node, network: Network, state: State) -> tuple[Tensor, Tensor]:
    """A batch norm as a factor and a shift of each channel. (channels,)"""
    given, names = arguments(norm), network.program.state_names
    scale = (state(names[given["running_var"]]).detach() + given["eps"]).rsqrt()
    if isinstance(given["weight"], Node):
        scale = scale * state(names[given["weight"]]).detach()
    shift = -state(names[given["running_mean"]]).detach() * scale
    if isinstance(given["bias"], Node):
        shift = shift + state(names[given["bias"]]).detach()
    return scale, shift


def output_context(network: Network, layer: LinearLayer) -> OutputContext:
    """What comes of a layer's output."""
    norm = norm_behind(layer.node)
    at = _past_dropout(norm or layer.node)
    other = _other(network, layer, at)
    if other is not None:
        at = _past_dropout(next(iter(at.users)))
    user = next(iter(at.users)) if len(at.users) == 1 else None
    return OutputContext(layer.node, norm, other, at, *clipped_bounds(user))


def clipped_bounds(user: Node | None) -> Bounds:
    """Return the bounds beyond which an operator's result is constant, infinite where there are none."""
    clips = None if user is None else functional_rule_of(user).clips
    return (-inf, inf) if user is None or clips is None else clips(user)


def _past_dropout(node: Node) -> Node:
    while len(node.users) == 1 and operator_name(next(iter(node.users))) == "dropout":
        node = next(iter(node.users))
    return node


def _other(network: Network, layer: LinearLayer, at: Node) -> Node | None:
    """What an operator's result is added to, if that is there before the layer runs."""
    if len(at.users) != 1:
        return None
    (user,) = at.users
    other: Any = next((each for each in user.args if each is not at), None)
    if rule_of(user).sums != "add" or user.kwargs.get("alpha", 1) != 1 or not isinstance(other, Node):
        return None
    position = network.program.position
    alike = getattr(other.meta.get("val"), "shape", None) == layer.node.meta["val"].shape
    is_before = other.op == "call_function" and position[other] < position[layer.node]
    return other if alike and is_before else None
