"""Plans tried without cutting: units are silent, their readers are refitted if need be, and outputs are compared."""

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch.fx import Node

from secateur.data import Batch
from secateur.importance.losses import divergence
from secateur.network.layers import Layer, layers_of
from secateur.network.masked import Means
from secateur.network.units import Kept, Network
from secateur.recovery.judge import apart
from secateur.recovery.lockstep import Lockstep
from secateur.recovery.refit import fitting, refit_layer
from secateur.recovery.within import Within


class Rehearsal:
    """A network and examples to try plans on: three quarters to refit with, the others to judge by.

    Args:
        network: the traced network.
        cells: the examples.
        means: what stands in the place of absent units if nothing is refitted; None where layers are.
    """

    def __init__(self, network: Network, cells: Sequence[Batch], means: Means | None = None) -> None:
        self.network, self._means = network, means
        parts = apart(cells, network.program.batched is not None)
        self.fitted, self.held = (Lockstep(Within.whole(network, {}), part) for part in parts)
        self._layers = layers_of(network) if means is None else []

    def on_part(self, part: float) -> "Rehearsal":
        """The same on the first cells of examples, at least that part of them."""
        if part >= 1:
            return self
        found = copy(self)
        found.fitted, found.held = (
            Lockstep(each.within, each.cells[: math.ceil(part * len(each.cells))]) for each in (self.fitted, self.held)
        )
        return found

    def reach(self, node: Node) -> None:
        """Run the dense network up to an operator; plans that change nothing before it start there."""
        self.fitted.reach(node)
        self.held.reach(node)

    def readers(self, name: str) -> list[Layer]:
        """The layers that read a group's units and can be refitted."""
        return [layer for layer in self._layers if self.network[name].owns(layer.inputs)]

    @torch.no_grad()
    def outputs(self, kept: Kept, layers: Sequence[Layer] | None = None) -> Iterator[tuple[Batch, Any, Any]]:
        """Each cell held out, and what the dense and the cut, refitted network make of it.

        Args:
            kept: the units that stay, by group.
            layers: those to refit; all by default.
        """
        within = Within.whole(self.network, kept, self._means)
        fitted, held = self.fitted.forked(within), self.held.forked(within)
        for layer in self._layers if layers is None else layers:
            part, _ = fitting(layer, within)
            if part is not None:
                refit_layer(fitted, part)
        for cell, (dense, cut) in zip(self.held.cells, held.outputs(), strict=True):
            yield cell, dense, cut

    def divergence(self, kept: Kept, layers: Sequence[Layer] | None = None) -> float:
        """The mean divergence on the examples held out."""
        return float(
            torch.cat([divergence(cut, dense).double() for _, dense, cut in self.outputs(kept, layers)]).mean()
        )
