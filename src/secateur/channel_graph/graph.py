"""Records of the graph of channels: nodes are feature maps, edges are operators from one to another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.masking.linear_layers import LinearLayer


@dataclass(frozen=True, eq=False)
class ChannelBlock:
    """Edges into the channels that one operator produces.

    Args:
        first: the number of the first of these channels; the others follow.
        sources: the channels from which edges lead to each of them, 0 for none (channels, edges).
        values: the logarithm of each edge's norm, -inf where there is no edge (channels, edges).
        operator: the name of that operator.
        layer: the layer whose kernels the edges are, None where they cannot be pruned.
        columns: the edge of each feature of a layer's matrix (groups, features).
        sums: the sum of the absolute weights of each kernel (channels, edges).
        begins: whether a chain may begin with these edges.
    """

    first: int
    sources: Tensor
    values: Tensor
    operator: str
    layer: LinearLayer | None = None
    columns: Tensor | None = None
    sums: Tensor | None = None
    begins: bool = True

    @property
    def span(self) -> slice:
        """The numbers of the channels, as a slice."""
        return slice(self.first, self.first + len(self.sources))

    @property
    def edges(self) -> Tensor:
        """The entries of a layer's `values` that are kernels, all but the padding of shorter rows (channels, edges)."""
        assert self.layer is not None and self.columns is not None
        counts = self.columns.amax(1) + 1  # (groups,)
        of_row = counts.repeat_interleave(len(self.sources) // len(counts))
        return torch.arange(self.values.shape[1]) < of_row[:, None]

    def over_entries(self, kernels: Tensor) -> Tensor:
        """Expand values of kernels (channels, edges) to the layer's matrix (groups, outputs, features)."""
        assert self.columns is not None
        rows = kernels.unflatten(0, (len(self.columns), -1))  # (groups, outputs, edges)
        entries: Tensor = rows.gather(2, self.columns[:, None].expand(-1, rows.shape[1], -1))
        return entries


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """All channels of a network and the edges between them.

    Args:
        blocks: the blocks in the order in which they run; edges come from channels of earlier blocks.
        size: the number of channel numbers, 0 being none.
        needed: channels that the network returns, or that an operator reads at which chains end.
        breaks: the operators at which chains end, with their modules.
    """

    blocks: tuple[ChannelBlock, ...]
    size: int
    needed: frozenset[int]
    breaks: tuple[str, ...]

    @property
    def layers(self) -> tuple[ChannelBlock, ...]:
        """The blocks whose edges are kernels."""
        return tuple(block for block in self.blocks if block.layer is not None)
