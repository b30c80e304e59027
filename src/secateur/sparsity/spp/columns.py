"""The columns of convolutions as matrix products, and masks on them that change while a network is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.masking.linear_layers import LinearLayer
from secateur.sparsity.spp.probabilities import increments


@dataclass
class Columns:
    """The groups of columns of one layer: their norms, their pruning probabilities and their masks.

    A column of a grouped convolution is the same one in all groups of channels, as in the official code.

    Args:
        layer: the layer.
        weight: its parameter, zero where columns are masked.
        group: the number of the group of each column: its own, or that of its channel (columns,).
        prune_count: the number of groups to prune.
        chances: the pruning probability of each group (groups,); 1 is final.
        masked: the groups that are masked in this step (groups,).
        unmasked_weight: the weight without masks.
    """

    layer: LinearLayer
    weight: Tensor
    group: Tensor
    prune_count: int
    chances: Tensor
    masked: Tensor
    unmasked_weight: Tensor

    @property
    def pruned(self) -> Tensor:
        """Groups that are pruned for good (groups,)."""
        return self.chances >= 1

    @property
    def missing(self) -> int:
        """The number of groups that are still to be pruned."""
        return self.prune_count - int(self.pruned.sum())

    @property
    def kept(self) -> Tensor:
        """Columns that are not pruned for good (columns,)."""
        return ~self.pruned[self.group]

    def norms(self) -> Tensor:
        """Return the sum of the absolute weights of each group (groups,)."""
        columns = self.layer.matrix(self.unmasked_weight).double().abs().sum((0, 1)).cpu()  # over (groups, filters)
        return torch.zeros_like(self.chances).index_add_(0, self.group, columns)

    def masked_entries(self) -> Tensor:
        """Return the entries of the weight that are masked in this step, in the weight's shape."""
        columns = self.masked[self.group].to(self.weight.device)
        rows = columns.expand(self.layer.matrix(self.weight).shape)
        return self.layer.weight_of(rows, self.weight)

    def apply_mask(self, masked: Tensor) -> None:
        """Mask these groups (groups,); a masked column keeps its value until it returns."""
        self.masked = masked
        self.weight.copy_(torch.where(self.masked_entries(), 0, self.unmasked_weight))

    def draw_mask(self, draws: torch.Generator) -> None:
        """Mask each group with its probability."""
        uniform = torch.rand(len(self.chances), generator=draws, dtype=torch.float64)
        self.apply_mask(uniform < self.chances)

    def store_step(self) -> None:
        """Take over the weight that the optimizer has moved, but for the masked entries, which have not moved."""
        self.unmasked_weight = torch.where(self.masked_entries(), self.unmasked_weight, self.weight)

    def move_chances(self) -> None:
        """Move the probabilities of groups that are not pruned for good, by the ranks of their norms.

        No more groups reach probability 1 than are still to be pruned, as only so many probabilities rise.
        """
        open_groups = torch.nonzero(~self.pruned).flatten()
        ranks = torch.empty(len(open_groups), dtype=torch.double)
        ranks[self.norms()[open_groups].argsort(stable=True)] = torch.arange(len(open_groups), dtype=torch.double)
        self.chances[open_groups] = (self.chances[open_groups] + increments(ranks, self.missing)).clamp(0, 1)

    def finish(self) -> None:
        """End the pruning of this layer: scale the remaining columns once by their probability to be present."""
        presence = (1 - self.chances)[self.group].to(self.weight)
        self.unmasked_weight = self.layer.weight_of(self.layer.matrix(self.unmasked_weight) * presence, self.weight)
        self.chances = self.pruned.double()
        self.apply_mask(self.pruned)


def columns_of(layer: LinearLayer, weight: Tensor, prune_count: int, groups: str) -> Columns:
    """Return the columns of a layer, none of which is masked yet.

    Args:
        layer: the layer.
        weight: its parameter.
        prune_count: the number of groups of columns to prune.
        groups: "columns", or "channels" for all positions of a kernel together.
    """
    group = group_numbers(layer, groups)
    chances = torch.zeros(int(group.max()) + 1, dtype=torch.float64)
    return Columns(layer, weight, group, prune_count, chances, chances > 0, weight.detach().clone())


def group_numbers(layer: LinearLayer, groups: str) -> Tensor:
    """Return the number of the group of each column (columns,)."""
    columns = torch.arange(layer.features_of_group)
    return columns if groups == "columns" else columns // layer.kernel
