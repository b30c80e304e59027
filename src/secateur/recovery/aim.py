"""What a layer's output should be, so that what comes of it is as in the dense network.

A batch norm behind may not be the dense network's any more. A sum that the output goes into may have another part,
the residual stream, which is there already: the layer can make good its error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.network.labels import operator_name
from secateur.network.layers import Layer, norm_behind
from secateur.network.program import arguments
from secateur.network.units import Network
from secateur.recovery.lockstep import Values
from secateur.recovery.within import Within

LEAST_SCALE = 1e-3
State = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class Aim:
    """What comes of a layer's output.

    Args:
        norm: the batch norm that alone uses it, or None.
        other: what it is added to, if that is there before the layer runs, or None.
    """

    norm: Node | None
    other: Node | None

    def wanted(self, output: Tensor, dense: Values, cut: Values, within: Within) -> Tensor:
        """From the dense layer's output, what the cut network's should be."""
        if self.norm is None:
            return output if self.other is None else output + (dense[self.other] - cut[self.other])
        scale, shift = _affine(self.norm, within.network, lambda name: within.state[name])
        dense_scale, dense_shift = _affine(self.norm, within.network, within.network.program.state)
        channels = (-1, *[1] * (output.dim() - 2))
        seen = output * dense_scale.view(channels) + dense_shift.view(channels)
        if self.other is not None:
            seen = seen + (dense[self.other] - cut[self.other])
        silent = scale.abs() < LEAST_SCALE * scale.abs().max()
        safe = torch.where(silent, 1.0, scale)
        return torch.where(silent.view(channels), output, (seen - shift.view(channels)) / safe.view(channels))


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


def aim_of(network: Network, layer: Layer) -> Aim:
    """What comes of a layer's output."""
    norm = norm_behind(layer.node)
    at = norm or layer.node
    while len(at.users) == 1 and operator_name(next(iter(at.users))) == "dropout":
        at = next(iter(at.users))
    if len(at.users) != 1:
        return Aim(norm, None)
    (user,) = at.users
    other: Any = next((each for each in user.args if each is not at), None)
    if operator_name(user) not in ("add", "add_") or user.kwargs.get("alpha", 1) != 1 or not isinstance(other, Node):
        return Aim(norm, None)
    position = network.program.position
    alike = getattr(other.meta.get("val"), "shape", None) == layer.node.meta["val"].shape
    is_before = other.op == "call_function" and position[other] < position[layer.node]
    return Aim(norm, other if alike and is_before else None)
