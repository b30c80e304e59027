"""Entries of a model's parameters that are held at zero while it is trained."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from secateur.coupling.cost import WHOLE
from secateur.coupling.network import Network
from secateur.errors import SurgeryError


@contextmanager
def held_at_zero(model: nn.Module, stays: Mapping[str, Tensor]) -> Iterator[None]:
    """Training leaves zeros at zero: their gradients are nothing, and what still moved them is undone at the end.

    Args:
        model: the model that is trained in the meantime.
        stays: which entries of parameters may be other than zero, by name.
    """
    parameters = dict(model.named_parameters())
    hooks = [
        parameters[name].register_hook(lambda slope, mask=mask: slope * mask.to(slope)) for name, mask in stays.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, mask in stays.items():
                parameters[name].mul_(mask.to(parameters[name]))


@contextmanager
def fading(model: nn.Module, stays: Mapping[str, Tensor], factor: float) -> Iterator[None]:
    """After each step of an optimizer what does not stay is multiplied by a factor, so that training makes up for it.

    Args:
        model: the model that is trained in the meantime.
        stays: which entries of parameters are left alone, by name.
        factor: below 1.
    """
    parameters = dict(model.named_parameters())
    factors = {name: torch.where(mask, 1.0, factor) for name, mask in stays.items()}

    def fade(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        own = {id(each) for group in optimizer.param_groups for each in group["params"]}
        with torch.no_grad():
            for name, each in factors.items():
                if id(parameters[name]) in own:
                    parameters[name].mul_(each.to(parameters[name]))

    hook = register_optimizer_step_post_hook(fade)
    try:
        yield
    finally:
        hook.remove()


class Masks:
    """Units that are gone, though not yet cut: all that they own is zero.

    With what makes a unit and what reads it at zero the network computes what it would compute without, but for norms
    over units (layer norms), which count it until it is cut.

    Args:
        model: whose parameters.
        network: its trace.

    Raises:
        SurgeryError: the network has parameters that the model has not: weights computed from others.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.network = network
        self.parameters = dict(model.named_parameters())
        held = {*self.parameters, *(name for name, _ in model.named_buffers())}
        unknown = next((member.tensor for member in network.members if member.tensor not in held), None)
        if unknown is not None:
            raise SurgeryError(
                f"{unknown} is not a parameter of {network.title}, which computes it from others (a weight norm?); "
                "remove the parametrization before training"
            )
        self.alive = torch.ones(network.units + 1, dtype=torch.bool)
        self._held: dict[str, list[tuple[int, Tensor]]] = {}

    def remove(self, units: Tensor) -> None:
        """These units go, and all that went before stays gone."""
        self.alive[units] = False
        held: defaultdict[str, list[tuple[int, Tensor]]] = defaultdict(list)
        for member in self.network.members:
            gone = torch.nonzero(~self.alive[member.units]).flatten()
            if len(gone) and member.tensor in self.parameters:
                held[member.tensor].append((member.axis, gone.to(self.parameters[member.tensor].device)))
        self._held = dict(held)
        self.apply()

    def apply(self) -> None:
        """Put the zeros back that an optimizer has moved."""
        with torch.no_grad():
            for name, places in self._held.items():
                for axis, gone in places:
                    _clear(self.parameters[name], axis, gone)

    @torch.no_grad()
    def clear_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero the momentum of entries that are gone, in optimizers that keep one for each entry."""
        for name, places in self._held.items():
            parameter = self.parameters[name]
            for momentum in momenta_of(optimizer, parameter):
                for axis, gone in places:
                    _clear(momentum, axis, gone)

    def kept(self) -> dict[str, Tensor]:
        """The units that stay, by group."""
        return {group.name: torch.nonzero(self.alive[group.span]).flatten() for group in self.network.groups}

    def state_dict(self) -> dict[str, Any]:
        return {"alive": self.alive.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            SurgeryError: it is of another network.
        """
        if state["alive"].shape != self.alive.shape:
            raise SurgeryError(
                f"the state is of a network of {len(state['alive']) - 1} units, {self.network.title} has "
                f"{self.network.units}; resume with the model that the state was saved of"
            )
        self.remove(torch.nonzero(~state["alive"]).flatten())


def _clear(tensor: Tensor, axis: int, gone: Tensor) -> None:
    """Zero the entries of a tensor at some places of an axis, or all of it where its block is gone."""
    if axis == WHOLE:
        tensor.zero_()
    else:
        tensor.index_fill_(axis, gone, 0)


MOMENTA = ("momentum_buffer", "exp_avg")  # as torch's optimizers name the averages of gradients


def momenta_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """The averages of a parameter's gradients that an optimizer keeps, entry by entry."""
    state = optimizer.state.get(parameter, {})
    for name in MOMENTA:
        momentum = state.get(name)
        if isinstance(momentum, Tensor) and momentum.shape == parameter.shape:
            yield momentum


@torch.no_grad()
def clear_all_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zero the averages of gradients of all parameters."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for momentum in momenta_of(optimizer, parameter):
                momentum.zero_()
