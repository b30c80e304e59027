"""One layer's weight on its way to blocks of one absolute value, or of zero."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import SurgeryError
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, labels_of, project, signs


@dataclass
class LayerState:
    """A weight and the variables of ADMM that belong to it.

    Args:
        name: the name of the layer.
        weight: the parameter.
        blocks: the division of the weight into blocks.
        labels: the kind of each block: free, unified or pruned (blocks,).
        auxiliary: the nearest weight of that structure (Z).
        dual: the accumulated distance of the weight from it, scaled by the penalty (U).
    """

    name: str
    weight: nn.Parameter
    blocks: Blocks
    labels: Tensor
    auxiliary: Tensor
    dual: Tensor

    @property
    def residual(self) -> float:
        """The distance of the weight from the structure, as a fraction of its own norm."""
        weight = self.weight.detach()
        return float((weight - self.auxiliary).norm() / weight.norm().clamp_min(1e-12))

    def penalty_gradient(self) -> Tensor:
        """Return the gradient of 1/2 ||W - Z + U||^2 by the weight."""
        return self.weight.detach() - self.auxiliary + self.dual

    def update(self, pruned: float, unified: float) -> None:
        """Project W + U onto the structure, and add what remains to U.

        Args:
            pruned: the fraction of blocks to prune.
            unified: the fraction of blocks to unify.
        """
        shifted_weight = self.weight.detach() + self.dual
        self.labels = labels_of(self.blocks, shifted_weight, pruned, unified)
        self.auxiliary = project(self.blocks, shifted_weight, self.labels)
        self.dual = shifted_weight - self.auxiliary

    def harden(self, pruned: float, unified: float) -> None:
        """Give the weight the structure that is nearest to it; arguments as `update` takes them."""
        self.labels = labels_of(self.blocks, self.weight, pruned, unified)
        self.auxiliary = project(self.blocks, self.weight.detach(), self.labels)
        self.weight.copy_(self.auxiliary)

    def structured_gradient(self, gradient: Tensor) -> Tensor:
        """Return the part of a gradient along the structure: zero in pruned blocks, one magnitude's in unified ones."""
        slopes, block_signs = self.blocks.cut(gradient), self._signs()
        return self._with_structure(slopes, block_signs * self._signed_mean(slopes, block_signs))

    def restore_structure(self) -> None:
        """Restore the structure of the weight where rounding, or momentum of an optimizer, has left it."""
        values, block_signs = self.blocks.cut(self.weight.detach()), self._signs()
        level = self._signed_mean(values, block_signs).clamp_min(0)
        self.weight.copy_(self._with_structure(values, block_signs * level))

    def state(self) -> dict[str, Tensor]:
        """Return what is needed to resume, under the names that files have."""
        return {"labels": self.labels, "target": self.auxiliary, "gap": self.dual}

    def check_state(self, state: Mapping[str, Tensor] | None) -> None:
        """Check that a state belongs to this weight and these blocks.

        Raises:
            SurgeryError: It does not.
        """
        shapes = (self.weight.shape, self.weight.shape, self.labels.shape)
        if state is None or (state["target"].shape, state["gap"].shape, state["labels"].shape) != shapes:
            raise SurgeryError(f"the state has no such blocks as {self.name}; give that of the same network")
        if not bool(((state["labels"] >= FREE) & (state["labels"] <= PRUNED)).all()):
            raise SurgeryError(f"the blocks of {self.name} are of no known kind")

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a checked state."""
        self.labels = state["labels"]
        self.auxiliary, self.dual = state["target"].to(self.weight), state["gap"].to(self.weight)

    def _signs(self) -> Tensor:
        """Return the signs that the weight has in unified blocks (blocks, entries)."""
        return self.blocks.cut(signs(self.auxiliary))

    def _signed_mean(self, values: Tensor, block_signs: Tensor) -> Tensor:
        """Return the mean of each block's values times signs (blocks, 1)."""
        return ((values * block_signs).sum(1) / self.blocks.sizes().to(values))[:, None]

    def _with_structure(self, values: Tensor, unified_values: Tensor) -> Tensor:
        """Return a weight of some values (blocks, entries), others in unified blocks, and zero in pruned blocks."""
        labels = self.labels.to(values.device)[:, None]
        structured_values = torch.where(labels == UNIFIED, unified_values, values)
        return self.blocks.join(structured_values.masked_fill(labels == PRUNED, 0))


def start_state(name: str, weight: nn.Parameter, shape: tuple[int, ...], pruned: float, unified: float) -> LayerState:
    """Return the state of a weight before training.

    Args:
        name: the name of the layer.
        weight: the parameter.
        shape: the shape of its blocks.
        pruned: the fraction of blocks to prune.
        unified: the fraction of blocks to unify.
    """
    blocks = Blocks(tuple(weight.shape), shape)
    labels = labels_of(blocks, weight.detach(), pruned, unified)
    auxiliary = project(blocks, weight.detach(), labels)
    return LayerState(name, weight, blocks, labels, auxiliary, torch.zeros_like(auxiliary))
