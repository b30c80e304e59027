"""What a network's channels are to each other: nodes are feature maps, edges are operators from one to another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.masking.linear_layers import LinearLayer


@dataclass(frozen=True, eq=False)
class ChannelBlock:
    """Edges into the channels that one operator makes.

    Args:
        first: the number of the first of these channels; the others follow.
        sources: for each of them the channels that edges come from, 0 for none (channels, edges).
        values: the logarithm of each edge's norm, -inf where there is no edge (channels, edges).
        operator: the name of that operator.
        layer: whose kernels the edges are, None where they can't be pruned.
        columns: of a layer's matrix, for each group's features the edge that they belong to (groups, features).
        sums: of the absolute weights of each kernel (channels, edges).
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
        return slice(self.first, self.first + len(self.sources))

    @property
    def edges(self) -> Tensor:
        """Which entries of a layer's `values` are kernels: all but those that fill up shorter rows."""
        assert self.layer is not None and self.columns is not None
        counts = self.columns.amax(1) + 1  # (groups,)
        of_row = counts.repeat_interleave(len(self.sources) // len(counts))
        return torch.arange(self.values.shape[1]) < of_row[:, None]

    def over_entries(self, kernels: Tensor) -> Tensor:
        """Something of each kernel (channels, edges), for each entry of the layer's matrix."""
        assert self.columns is not None
        rows = kernels.unflatten(0, (len(self.columns), -1))  # (groups, outputs, edges)
        entries: Tensor = rows.gather(2, self.columns[:, None].expand(-1, rows.shape[1], -1))
        return entries


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """All channels of a network and what leads from one to another.

    Args:
        blocks: in the order in which they run; edges come from channels of blocks before.
        size: how many numbers of channels there are, 0 being none.
        needed: channels that the network returns, or that go where chains were not followed.
        breaks: operators through which chains were not followed, with their modules.
    """

    blocks: tuple[ChannelBlock, ...]
    size: int
    needed: frozenset[int]
    breaks: tuple[str, ...]

    @property
    def layers(self) -> tuple[ChannelBlock, ...]:
        """The blocks whose edges are kernels."""
        return tuple(block for block in self.blocks if block.layer is not None)
