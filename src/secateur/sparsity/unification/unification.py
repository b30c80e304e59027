"""Unification and pruning of small blocks while a network is trained, by ADMM (Lin et al. 2021)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.entry import entry_point
from secateur.errors import BudgetError, SurgeryError
from secateur.masking.linear_layers import identity_weight
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, labels_of, projected, signs
from secateur.sparsity.unification.layers import weights_to_structure
from secateur.sparsity.unification.shapes import DEFAULT_SHAPE, Shape, block_shapes
from secateur.training.optimizer_hooks import attach_optimizer_hooks, check_finite, check_holds, is_skipped, scale_of

LARGEST = 1.0


@dataclass
class LayerState:
    """One weight on its way to blocks.

    Args:
        name: the weight's.
        weight: the parameter.
        blocks: how it falls into blocks.
        labels: which blocks are free, unified, pruned (blocks,).
        target: the nearest weight of that structure (Z).
        gap: what has come together of the weight's distance to it (U).
    """

    name: str
    weight: nn.Parameter
    blocks: Blocks
    labels: Tensor
    target: Tensor
    gap: Tensor

    def held(self) -> Tensor:
        """The signs that the weight has in unified blocks."""
        return self.blocks.cut(signs(self.target))

    @property
    def residual(self) -> float:
        """How far the weight is from the structure, as a part of its own size."""
        weight = self.weight.detach()
        return float((weight - self.target).norm() / weight.norm().clamp_min(1e-12))


class Unification:
    """Draw weights towards blocks of one absolute value, or of zero, while a network is trained.

    First stage: the loss gets a penalty rho / 2 ||W - Z + U||^2, whose gradient is added before each step of the
    optimizer; Z is the nearest weight with so many pruned and unified blocks to W + U, found anew every `every` steps,
    when U grows by W - Z and rho by `growth`. Second stage, from `harden` on: pruned blocks are zero, signs stay, one
    magnitude for each unified block is trained, and the free weights.

    Args:
        model: the model that is trained.
        optimizer: that trains it.
        pruned: the fraction of blocks that become zero.
        unified: the fraction that get one absolute value; by default all that are not pruned.
        shape: of a block: a side for each axis of the weight, such as (4, 4, 1, 1) for filters x input channels at one
            place of the kernel, or (filters, inputs) of the weight as a matrix; a number of weights, such as 8, for the
            shape of so many that changes each layer's weight least; or either by globs of layers' names. The source's
            shapes were not readable; (1, 8) lies along what is summed.
        rho: of the penalty; 1e-2 and the growth are ours, too.
        growth: of rho at each update, up to 1.
        every: steps between updates.
        only, skip: globs of layers; without `only` all convolutions and linear layers but depthwise ones, the last one,
            and the first one, where it holds less than half of the weights. `left_out` says what stays as it is.

    Raises:
        BudgetError: fractions, the shape or numbers are out of range.
        NameMatchError: a glob matches no layer.
        OptionError: the optimizer does not hold the weights of a layer to structure.
        SurgeryError: there is no layer to structure.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> blocks = Unification(model, optimizer, pruned=0.5, unified=0.5, shape=(1, 8), every=1)
        >>> blocks.harden()
        >>> sorted({round(float(each), 6) for each in model[1].weight[0, :8].abs()}).__len__()
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
        only: str | Sequence[str] | None = None,
        skip: str | Sequence[str] | None = None,
    ) -> None:
        unified = 1 - pruned if unified is None else unified
        fractions = pruned >= 0 and unified >= 0 and pruned + unified <= 1
        if not fractions or rho <= 0 or growth < 1 or every < 1:
            raise BudgetError(
                f"pruned={pruned}, unified={unified}, rho={rho}, growth={growth}, every={every}: two fractions of at "
                "most 1 together, rho above 0, growth and every from 1"
            )
        self.optimizer, self.fractions = optimizer, (pruned, unified)
        self.rho, self.growth, self.every = rho, growth, every
        weights, self.left_out = weights_to_structure(model, only, skip)
        check_holds(optimizer, weights)
        for name, weight in weights.items():
            identity_weight(weight.detach(), name)
        self.shapes = block_shapes(weights, shape, pruned, unified)
        self.layers = [self._start(name, weight, self.shapes[name]) for name, weight in weights.items()]
        self.steps = 0
        self.hard = False
        self._hooks = attach_optimizer_hooks(optimizer, self._before, self._after)

    @property
    def residuals(self) -> dict[str, float]:
        """||W - Z|| / ||W|| of every layer: where it is large when the weights are hardened, rho was too small."""
        return {each.name: each.residual for each in self.layers}

    def harden(self) -> None:
        """The weights take on the structure, and keep it in all steps from now on."""
        self.hard = True
        with torch.no_grad():
            for each in self.layers:
                each.labels = labels_of(each.blocks, each.weight, *self.fractions)
                each.target = projected(each.blocks, each.weight.detach(), each.labels)
                each.weight.copy_(each.target)

    def release(self) -> None:
        """Unhook from the optimizer; the weights stay as they are."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after an interruption, beside the model's and the optimizer's own states."""
        layers = {each.name: {"labels": each.labels, "target": each.target, "gap": each.gap} for each in self.layers}
        return {"steps": self.steps, "hard": self.hard, "rho": self.rho, "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            SurgeryError: it is of another network, or of other blocks.
        """
        for each in self.layers:
            saved = state["layers"].get(each.name)
            if (
                saved is None
                or saved["target"].shape != each.weight.shape
                or saved["labels"].shape != each.labels.shape
            ):
                raise SurgeryError(f"the state has no such blocks as {each.name}; give that of the same network")
            if not bool(((saved["labels"] >= FREE) & (saved["labels"] <= PRUNED)).all()):
                raise SurgeryError(f"the blocks of {each.name} are of no known kind")
        for each in self.layers:
            saved = state["layers"][each.name]
            each.labels = saved["labels"].clone()
            each.target, each.gap = saved["target"].to(each.weight), saved["gap"].to(each.weight)
        self.steps, self.hard, self.rho = int(state["steps"]), bool(state["hard"]), float(state["rho"])

    def _start(self, name: str, weight: nn.Parameter, shape: tuple[int, ...]) -> LayerState:
        blocks = Blocks(tuple(weight.shape), shape)
        labels = labels_of(blocks, weight.detach(), *self.fractions)
        target = projected(blocks, weight.detach(), labels)
        return LayerState(name, weight, blocks, labels, target, torch.zeros_like(target))

    def _before(self) -> None:
        if is_skipped(self.optimizer):
            return
        for each in self.layers:
            gradient = each.weight.grad
            if gradient is None:
                continue
            check_finite(gradient, self.steps + 1, each.name)
            if self.hard:
                gradient.copy_(_along_structure(each, gradient))
            else:
                gradient.add_(each.weight.detach() - each.target + each.gap, alpha=self.rho * scale_of(self.optimizer))

    def _after(self) -> None:
        if is_skipped(self.optimizer):
            return
        self.steps += 1
        with torch.no_grad():
            if self.hard:
                for each in self.layers:
                    each.weight.copy_(_kept(each))
            elif self.steps % self.every == 0:
                self._update()

    def _update(self) -> None:
        for each in self.layers:
            weight = each.weight.detach()
            each.labels = labels_of(each.blocks, weight + each.gap, *self.fractions)
            each.target = projected(each.blocks, weight + each.gap, each.labels)
            each.gap = each.gap + weight - each.target
        grown = min(self.rho * self.growth, max(LARGEST, self.rho))
        for each in self.layers:
            each.gap *= self.rho / grown  # the gap is scaled by rho: what it stands for stays
        self.rho = grown


def _along_structure(each: LayerState, gradient: Tensor) -> Tensor:
    """The part of a gradient that keeps the structure: none in pruned blocks, one magnitude's in unified ones."""
    slopes, held = each.blocks.cut(gradient), each.held()
    labels, sizes = each.labels.to(gradient.device), each.blocks.sizes().to(gradient)
    shared = held * ((slopes * held).sum(1) / sizes)[:, None]
    found = torch.where((labels == UNIFIED)[:, None], shared, slopes)
    return each.blocks.join(torch.where((labels == PRUNED)[:, None], torch.zeros_like(found), found))


def _kept(each: LayerState) -> Tensor:
    """The weight after a step, its structure mended where rounding or an optimizer's own state moved it."""
    values, held = each.blocks.cut(each.weight.detach()), each.held()
    labels, sizes = each.labels.to(values.device), each.blocks.sizes().to(values)
    level = ((values * held).sum(1) / sizes).clamp_min(0)
    found = torch.where((labels == UNIFIED)[:, None], held * level[:, None], values)
    return each.blocks.join(torch.where((labels == PRUNED)[:, None], torch.zeros_like(found), found))
