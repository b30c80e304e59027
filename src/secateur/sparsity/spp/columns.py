"""The columns of convolutions as matrix products, and masks on them that come and go while a network is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.masking.linear_layers import LinearLayer


@dataclass
class Columns:
    """One layer's groups of columns: what each is worth, how likely it is to be pruned, whether it is masked now.

    A column of a grouped convolution is the same one in all of its groups of channels, as in the official code.

    Args:
        layer: the layer.
        weight: its weight, as the model holds it: where columns are masked it is zero.
        group: for each column the number of its group: its own, or its channel's.
        count: how many groups shall go.
        chances: of each group to be pruned (groups,); 1 is for good.
        masked: whether each group is masked now (groups,).
        held: the weight as it is without masks.
    """

    layer: LinearLayer
    weight: Tensor
    group: Tensor
    count: int
    chances: Tensor
    masked: Tensor
    held: Tensor

    @property
    def pruned(self) -> Tensor:
        """Groups that are gone for good. (groups,)"""
        return self.chances >= 1

    @property
    def missing(self) -> int:
        """How many groups are still to go."""
        return self.count - int(self.pruned.sum())

    def norms(self) -> Tensor:
        """The sum of the absolute weights of each group. (groups,)"""
        columns = self.layer.matrix(self.held).double().abs().sum((0, 1)).cpu()  # over (groups, filters)
        return torch.zeros_like(self.chances).index_add_(0, self.group, columns)

    def places(self) -> Tensor:
        """Which entries of the weight are masked now."""
        columns = self.masked[self.group].to(self.weight.device)
        rows = columns.expand(self.layer.matrix(self.weight).shape)
        return self.layer.weight_of(rows, self.weight)

    def mask(self, masked: Tensor) -> None:
        """Mask these groups; what is masked keeps its value until it comes back."""
        self.masked = masked
        self.weight.copy_(torch.where(self.places(), 0, self.held))

    def updated(self) -> None:
        """After the optimizer has moved the weight: what is masked has not moved."""
        self.held = torch.where(self.places(), self.held, self.weight)

    @property
    def kept(self) -> Tensor:
        """Which columns are not gone for good. (columns,)"""
        return ~self.pruned[self.group]

    def free(self) -> None:
        """End the pruning of this layer: what survives is scaled once by the chance that it was there, and stays."""
        factor = (1 - self.chances)[self.group].to(self.weight)
        self.held = self.layer.weight_of(self.layer.matrix(self.held) * factor, self.weight)
        self.chances = self.pruned.double()
        self.mask(self.pruned)
