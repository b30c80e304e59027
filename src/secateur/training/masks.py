"""Entries of a model's parameters that are held at zero while it is trained."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from secateur.coupling.cost import WHOLE
from secateur.coupling.network import Network
from secateur.errors import SurgeryError


def _zero_entries(tensor: Tensor, axis: int, removed_entries: Tensor) -> None:
    """Zero the entries of a tensor at some indices along an axis, or all of them where its block is removed."""
    if axis == WHOLE:
        tensor.zero_()
    else:
        tensor.index_fill_(axis, removed_entries, 0)


MOMENTA = ("momentum_buffer", "exp_avg")  # as torch's optimizers name the averages of gradients


@contextmanager
def held_at_zero(model: nn.Module, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Hold pruned entries at zero during training: their gradients are zero, and what still moved them is undone.

    Args:
        model: the model that is trained within the context.
        kept: the entries of parameters that are not pruned, as boolean tensors by the parameters' names.
    """
    parameters = dict(model.named_parameters())
    hooks = [
        parameters[name].register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient))
        for name, mask in kept.items()
        if parameters[name].requires_grad  # frozen ones get no gradients
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, mask in kept.items():
                parameters[name].mul_(mask.to(parameters[name]))


@contextmanager
def fading(model: nn.Module, kept: Mapping[str, Tensor], factor: float) -> Iterator[None]:
    """Multiply pruned entries by a factor after each step of an optimizer, such that training adapts to their loss.

    Args:
        model: the model that is trained within the context.
        kept: the entries of parameters that are not pruned, as boolean tensors by the parameters' names.
        factor: a factor below 1.
    """
    parameters = dict(model.named_parameters())
    factors = {name: torch.where(mask, 1.0, factor) for name, mask in kept.items()}

    def fade(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        trained_ids = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        with torch.no_grad():
            for name, entry_factors in factors.items():
                if id(parameters[name]) in trained_ids:
                    parameters[name].mul_(entry_factors.to(parameters[name]))

    hook = register_optimizer_step_post_hook(fade)
    try:
        yield
    finally:
        hook.remove()


class Masks:
    """Removed units that are not cut yet: all entries that they own are zero.

    With the producers and the consumers of a unit at zero the network computes what it would compute without the unit,
    but for norms over units (layer norms), which count it until it is cut.

    Args:
        model: the model whose parameters are masked.
        network: its trace.

    Attributes:
        alive: the units that are not removed (units + 1,).

    Raises:
        SurgeryError: The network has parameters that the model does not have: weights computed from others.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.network = network
        self.parameters = dict(model.named_parameters())
        tensors = {*self.parameters, *(name for name, _ in model.named_buffers())}
        unknown = next((member.tensor for member in network.members if member.tensor not in tensors), None)
        if unknown is not None:
            raise SurgeryError(
                f"{unknown} is not a parameter of {network.title}, which computes it from others (a weight norm?); "
                "remove the parametrization before training"
            )
        self.alive = torch.ones(network.units + 1, dtype=torch.bool)
        self._zeroed: dict[str, list[tuple[int, Tensor]]] = {}  # by parameter: axis, indices along it

    def remove(self, units: Tensor) -> None:
        """Remove units, by their numbers in the network (removed,); earlier removals remain."""
        self.alive[units] = False
        zeroed_entries: defaultdict[str, list[tuple[int, Tensor]]] = defaultdict(list)
        for member in self.network.members:
            removed_entries = torch.nonzero(~self.alive[member.units]).flatten()
            if len(removed_entries) and member.tensor in self.parameters:
                zeroed_entries[member.tensor].append(
                    (member.axis, removed_entries.to(self.parameters[member.tensor].device))
                )
        self._zeroed = dict(zeroed_entries)
        self.apply()

    def apply(self) -> None:
        """Set the entries of removed units to zero again, where an optimizer has moved them."""
        with torch.no_grad():
            for name, entries in self._zeroed.items():
                for axis, removed_entries in entries:
                    _zero_entries(self.parameters[name], axis, removed_entries)

    @torch.no_grad()
    def clear_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero the momentum of removed entries, in optimizers that keep one for each entry."""
        for name, entries in self._zeroed.items():
            for momentum in momenta_of(optimizer, self.parameters[name]):
                for axis, removed_entries in entries:
                    _zero_entries(momentum, axis, removed_entries)

    def kept(self) -> dict[str, Tensor]:
        """Return the units that are not removed, by group."""
        return self.kept_without(())

    def kept_without(self, units: Iterable[int]) -> dict[str, Tensor]:
        """Return the units that would be kept if further ones were removed, by group."""
        alive = self.alive.clone()
        alive[list(units)] = False
        return {group.name: torch.nonzero(alive[group.span]).flatten() for group in self.network.groups}

    def state_dict(self) -> dict[str, Any]:
        """Return the units that are not removed."""
        return {"alive": self.alive.clone()}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state belongs to a network of so many units.

        Raises:
            SurgeryError: It does not.
        """
        if state["alive"].shape != self.alive.shape:
            raise SurgeryError(
                f"the state is of a network of {len(state['alive']) - 1} units, {self.network.title} has "
                f"{self.network.units}; resume with the model that the state was saved of"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the removed units of a state.

        Raises:
            SurgeryError: It belongs to another network.
        """
        self.check_state(state)
        self.alive[:] = True
        self.remove(torch.nonzero(~state["alive"]).flatten())


def momenta_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """Yield the averages of a parameter's gradients that an optimizer keeps, entry by entry."""
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
