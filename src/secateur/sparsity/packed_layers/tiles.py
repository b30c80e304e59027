"""Layers of few dense blocks: inputs gathered, blocks multiplied together, results put at their positions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class TiledLinear(nn.Module):
    """A linear layer whose weight is dense blocks, as one batched product over block rows.

    Every block row gets as many blocks as the fullest has; what it lacks is zero. Inputs are copied block by block, so
    that copies are of whole runs.

    Args:
        dense: the layer that it stands for.
        weight: (outputs, inputs) in block order, zero outside of the blocks.
        blocks: which blocks stay (block rows, block columns).
        shape: of a block (rows, columns).
        gather: the input at each position of the block order; None where they are in order.
    """

    def __init__(
        self, dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.shape, self.across = len(weight), shape, blocks.shape[1]
        tiles, tile_columns = _tiles(weight, blocks, shape)  # (down, most, high, wide)
        self.weight = nn.Parameter(tiles.transpose(2, 3).flatten(1, 2).contiguous())  # (down, most * wide, high)
        bias = None if dense.bias is None else F.pad(dense.bias.detach(), (0, len(tiles) * shape[0] - self.outputs))
        self.bias = None if bias is None else nn.Parameter(bias.view(len(tiles), 1, shape[0]).clone())
        self.gather = None if gather is None else nn.Buffer(gather)
        self.missing = self.across * shape[1] - (dense.in_features if gather is None else len(gather))
        self.register_buffer("read", tile_columns.flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        flat = self.in_order(x)
        blocks = flat.view(flat.shape[0], self.across, self.shape[1]).index_select(1, self.get_buffer("read"))
        read = blocks.view(flat.shape[0], *self.weight.shape[:2]).transpose(0, 1)  # (down, batch, most * wide)
        result = torch.bmm(read, self.weight) if self.bias is None else torch.baddbmm(self.bias, read, self.weight)
        result = result.transpose(0, 1).flatten(1)[:, : self.outputs]  # from (down, batch, high)
        outputs: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return outputs

    def in_order(self, x: Tensor) -> Tensor:
        """Return inputs in block order, with zeros where the last blocks reach beyond them (batch, across * wide)."""
        flat = x.reshape(-1, x.shape[-1])
        flat = flat if self.gather is None else flat.index_select(1, self.gather)
        return F.pad(flat, (0, self.missing)) if self.missing else flat  # padding by nothing copies


class TiledConvolution(nn.Module):
    """The same for a convolution, whose entries are whole kernels: one in groups, a group for each block row.

    Args: as of `TiledLinear`.
    """

    def __init__(
        self, dense: Convolution, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.inputs, self.shape, self.across = len(weight), weight.shape[1], shape, blocks.shape[1]
        tiles, tile_columns = _tiles(weight, blocks, shape)  # (down, most, high, wide, *kernel)
        kernels = tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # (down * high, most * wide, *kernel)
        read = len(tiles) * kernels.shape[1]
        conv_class: Any = type(dense)
        self.grouped = conv_class(
            read, len(kernels), dense.kernel_size, dense.stride, dense.padding, dense.dilation, len(tiles),
            dense.bias is not None, dense.padding_mode, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            self.grouped.weight.copy_(kernels)
            if dense.bias is not None:
                self.grouped.bias.copy_(F.pad(dense.bias, (0, len(kernels) - self.outputs)))
        self.gather = None if gather is None else nn.Buffer(gather)
        self.register_buffer("read", tile_columns.flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        lead, space = x.shape[: -1 - len(self.grouped.kernel_size)], x.shape[-len(self.grouped.kernel_size) :]
        maps = x.reshape(-1, self.inputs, *space)
        maps = maps if self.gather is None else maps.index_select(1, self.gather)
        missing = self.across * self.shape[1] - self.inputs
        maps = F.pad(maps, (*(0, 0) * len(space), 0, missing)) if missing else maps
        blocks = maps.reshape(len(maps), self.across, self.shape[1], *space).index_select(1, self.get_buffer("read"))
        result = self.grouped(blocks.flatten(1, 2))[:, : self.outputs]
        outputs: Tensor = result.reshape(*lead, *result.shape[1:])
        return outputs


def filled_up(weight: Tensor, blocks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the weight with zeros where the last blocks reach beyond it."""
    missing = [count * size - have for count, size, have in zip(blocks.shape, shape, weight.shape[:2], strict=True)]
    return F.pad(weight.detach(), (*(0, 0) * (weight.dim() - 2), 0, missing[1], 0, missing[0]))


def _tiles(weight: Tensor, blocks: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return each block row's blocks (down, most, high, wide, *kernel), and their block columns (down, most)."""
    (high, wide), (down, across), kernel = shape, blocks.shape, weight.shape[2:]
    tiles = filled_up(weight, blocks, shape).view(down, high, across, wide, *kernel).transpose(1, 2)
    most = max(int(blocks.sum(1).max()), 1)
    tile_columns = blocks.long().argsort(dim=1, descending=True, stable=True)[:, :most].to(weight.device)
    rows = torch.arange(down, device=weight.device)[:, None]
    stays = blocks.to(weight.device)[rows, tile_columns].view(down, most, *(1 for _ in weight.shape))
    return tiles[rows, tile_columns] * stays, tile_columns
