"""Unification and pruning of small blocks while a network is trained, by ADMM (Lin et al. 2021)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.entry import entry_point
from secateur.errors import BudgetError
from secateur.masking.finite_weights import finite_weight
from secateur.options.call_checks import checked_calls
from secateur.options.selections import Selection
from secateur.sparsity.unification.layer_state import start_state
from secateur.sparsity.unification.layers import weights_to_structure
from secateur.sparsity.unification.shapes import DEFAULT_SHAPE, Shape, block_shapes
from secateur.training.method import TrainingMethod
from secateur.training.optimizer_hooks import scale_of

LARGEST_RHO = 1.0


@checked_calls
class Unification(TrainingMethod):
    """Draw weights towards blocks of one absolute value, or of zero, while a network is trained.

    In the first stage the loss gets a penalty rho / 2 ||W - Z + U||^2, whose gradient is added before each step of the
    optimizer. Z is the weight nearest to W + U with the required numbers of pruned and unified blocks; every `every`
    steps it is computed anew, U increases by W - Z, and rho by the factor `growth`. In the second stage, from `harden`
    on, pruned blocks are zero, signs are fixed, and one magnitude for each unified block is trained, and the free
    weights.

    Args:
        model: the model that is trained.
        optimizer: the optimizer that trains it.
        pruned: the fraction of blocks that become zero.
        unified: the fraction that get one absolute value; by default all that are not pruned.
        shape: the shape of a block: a side for each axis of the weight, such as (4, 4, 1, 1) for filters x input
            channels at one position of the kernel, or (filters, inputs) of the weight as a matrix; a number of weights,
            such as 8, for the shape of so many that changes each layer's weight least; or either by globs of layers'
            names. The source's shapes were not readable; (1, 8) lies along what is summed.
        rho: the weight of the penalty; 1e-2 and the growth are ours, too.
        growth: the factor of rho at each update, up to a rho of 1.
        every: steps between updates.
        only: globs, modules or classes of modules; by default all convolutions and linear layers but depthwise ones,
            the last one, and the first one, where it holds less than half of the weights.
        skip: the layers that are left out, as `only` takes them.

    Attributes:
        shapes: the shape of blocks, by layer.
        layers: the state of each layer.
        left_out: the layers without blocks, with the reasons.

    Raises:
        BudgetError: Fractions, the shape or numbers are out of range.
        NameMatchError: A glob matches no layer.
        OptionError: The optimizer does not hold the weights of a layer to structure.
        SurgeryError: There is no layer to structure.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> blocks = Unification(model, optimizer, pruned=0.5, unified=0.5, shape=(1, 8), every=1)
        >>> blocks.harden()
        >>> sorted({round(float(value), 6) for value in model[1].weight[0, :8].detach().abs()}).__len__()
        1
    """

    @entry_point
    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        pruned: float = 0.5,
        unified: float | None = None,
        *,
        shape: Shape | Mapping[str, Shape] = DEFAULT_SHAPE,
        rho: float = 1e-2,
        growth: float = 1.35,
        every: int = 100,
        only: Selection | None = None,
        skip: Selection | None = None,
    ) -> None:
        unified = 1 - pruned if unified is None else unified
        fractions = pruned >= 0 and unified >= 0 and pruned + unified <= 1
        if not fractions or not 0 < rho < math.inf or not 1 <= growth < math.inf or every < 1:
            raise BudgetError(
                f"pruned={pruned}, unified={unified}, rho={rho}, growth={growth}, every={every}: two fractions of at "
                "most 1 together, rho above 0, growth and every from 1"
            )
        weights, excluded_reasons = weights_to_structure(model, only, skip)
        super().__init__(model, optimizer, weights)
        self.fractions, self.left_out = (pruned, unified), excluded_reasons
        self.rho, self.growth, self.every = rho, growth, every
        for name, weight in weights.items():
            finite_weight(weight.detach(), name)
        self.shapes = block_shapes(weights, shape, pruned, unified)
        self.layers = [
            start_state(name, weight, self.shapes[name], *self.fractions) for name, weight in weights.items()
        ]
        self.hard = False
        self.attach()

    @property
    def residuals(self) -> dict[str, float]:
        """||W - Z|| / ||W|| of every layer: a large value when the weights are hardened means that rho was small."""
        return {layer.name: layer.residual for layer in self.layers}

    def harden(self) -> None:
        """Give the weights the structure, which they keep in all further steps."""
        self.hard = True
        with torch.no_grad():
            for layer in self.layers:
                layer.harden(*self.fractions)

    def method_state(self) -> dict[str, Any]:
        """Return the stage, rho, and the variables of each layer."""
        return {"hard": self.hard, "rho": self.rho, "layers": {layer.name: layer.state() for layer in self.layers}}

    def check_method_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state has the blocks of this network.

        Raises:
            SurgeryError: It belongs to another network, or to other blocks.
        """
        for layer in self.layers:
            layer.check_state(state["layers"].get(layer.name))

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take over the stage, rho, and the variables of each layer."""
        for layer in self.layers:
            layer.load_state(state["layers"][layer.name])
        self.hard, self.rho = bool(state["hard"]), float(state["rho"])

    def before_step(self) -> None:
        """Add the gradient of the penalty, or reduce gradients to their part along the structure."""
        for layer in self.layers:
            gradient = self.finite_gradient(layer.name, layer.weight)
            if gradient is None:
                continue
            if self.hard:
                gradient.copy_(layer.structured_gradient(gradient))
            else:
                gradient.add_(layer.penalty_gradient(), alpha=self.rho * scale_of(self.optimizer))

    def after_step(self) -> None:
        """Restore the structure, or update Z, U and rho where it is time."""
        if self.hard:
            for layer in self.layers:
                layer.restore_structure()
        elif self.steps % self.every == 0:
            self._update()

    def _update(self) -> None:
        larger_rho = min(self.rho * self.growth, max(LARGEST_RHO, self.rho))
        for layer in self.layers:
            layer.update(*self.fractions)
            layer.dual *= self.rho / larger_rho  # U is scaled by rho, so that the multiplier itself is unchanged
        self.rho = larger_rho
