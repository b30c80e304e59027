"""The operators behind a layer's output, on which the targets of the output depend."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.op_rule import Bounds
from secateur.coupling.rules.registry import functional_rule_of, rule_of
from secateur.graph.operators import arguments, operator_name
from secateur.masking.batch_norms import norm_behind
from secateur.masking.linear_layers import LinearLayer

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
