"""Layers of few dense blocks: inputs gathered, blocks multiplied, results put in their places."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.timing import fastest


class TiledLinear(nn.Module):
    """A linear layer whose weight is dense blocks, as one batched product over block rows.

    Every block row gets as many blocks as the fullest has; what it lacks is zero. Inputs are copied block by block, so
    that copies are of whole runs.

    Args:
        dense: the layer that it stands for.
        weight: (outputs, inputs) in block order, zero outside of the blocks.
        blocks: which blocks stay (block rows, block columns).
        shape: of a block (rows, columns).
        gather: for each place of the block order the input that sits there; None where they are in order.
    """

    def __init__(
        self, dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.shape, self.across = len(weight), shape, blocks.shape[1]
        tiles, chosen = _tiles(weight, blocks, shape)  # (down, most, high, wide)
        self.weight = nn.Parameter(tiles.transpose(2, 3).flatten(1, 2).contiguous())  # (down, most * wide, high)
        bias = None if dense.bias is None else F.pad(dense.bias.detach(), (0, len(tiles) * shape[0] - self.outputs))
        self.bias = None if bias is None else nn.Parameter(bias.view(len(tiles), 1, shape[0]).clone())
        self.gather = None if gather is None else nn.Buffer(gather)
        self.register_buffer("read", chosen.flatten())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        flat = flat if self.gather is None else flat.index_select(1, self.gather)
        missing = self.across * self.shape[1] - flat.shape[1]
        flat = F.pad(flat, (0, missing)) if missing else flat  # padding by nothing copies
        blocks = flat.view(len(flat), self.across, self.shape[1]).index_select(1, self.get_buffer("read"))
        read = blocks.view(len(flat), len(self.weight), -1).transpose(0, 1)  # (down, batch, most * wide)
        result = torch.bmm(read, self.weight) if self.bias is None else torch.baddbmm(self.bias, read, self.weight)
        result = result.transpose(0, 1).reshape(len(flat), -1)[:, : self.outputs]  # from (down, batch, high)
        found: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return found


class TiledConvolution(nn.Module):
    """The same for a convolution, whose entries are whole kernels: one in groups, a group for each block row.

    Args: as of `TiledLinear`.
    """

    def __init__(
        self, dense: "Convolution", weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.inputs, self.shape, self.across = len(weight), weight.shape[1], shape, blocks.shape[1]
        tiles, chosen = _tiles(weight, blocks, shape)  # (down, most, high, wide, *kernel)
        kernels = tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # (down * high, most * wide, *kernel)
        read = len(tiles) * kernels.shape[1]
        made: Any = type(dense)
        self.grouped = made(
            read, len(kernels), dense.kernel_size, dense.stride, dense.padding, dense.dilation, len(tiles),
            dense.bias is not None, dense.padding_mode, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            self.grouped.weight.copy_(kernels)
            if dense.bias is not None:
                self.grouped.bias.copy_(F.pad(dense.bias, (0, len(kernels) - self.outputs)))
        self.gather = None if gather is None else nn.Buffer(gather)
        self.register_buffer("read", chosen.flatten())

    def forward(self, x: Tensor) -> Tensor:
        lead, space = x.shape[: -1 - len(self.grouped.kernel_size)], x.shape[-len(self.grouped.kernel_size) :]
        maps = x.reshape(-1, self.inputs, *space)
        maps = maps if self.gather is None else maps.index_select(1, self.gather)
        missing = self.across * self.shape[1] - self.inputs
        maps = F.pad(maps, (*(0, 0) * len(space), 0, missing)) if missing else maps
        blocks = maps.reshape(len(maps), self.across, self.shape[1], *space).index_select(1, self.get_buffer("read"))
        result = self.grouped(blocks.flatten(1, 2))[:, : self.outputs]
        found: Tensor = result.reshape(*lead, *result.shape[1:])
        return found


class BlockSparseLinear(nn.Module):
    """The same by torch's own block sparse rows, for square blocks.

    Args: as of `TiledLinear`.
    """

    def __init__(
        self, dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        padded = _filled_up(weight, blocks, shape)
        self.columns = padded.shape[1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse BSR tensor support is in beta")
            rows = padded.to_sparse_bsr(shape)
        self.shape = tuple(rows.shape)
        self.values = nn.Parameter(rows.values(), requires_grad=False)
        self.register_buffer("starts", rows.crow_indices())
        self.register_buffer("places", rows.col_indices())
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())
        self.gather = None if gather is None else nn.Buffer(gather)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs)
        flat = flat if self.gather is None else flat.index_select(1, self.gather)
        flat = F.pad(flat, (0, self.columns - self.inputs)) if self.columns > self.inputs else flat
        weight = torch.sparse_bsr_tensor(
            self.get_buffer("starts"), self.get_buffer("places"), self.values, self.shape, check_invariants=False
        )
        result = (weight @ flat.t()).t()[:, : self.outputs]
        result = result if self.bias is None else result + self.bias
        found: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return found


def _filled_up(weight: Tensor, blocks: Tensor, shape: tuple[int, int]) -> Tensor:
    """The weight with zeros where the last blocks reach beyond it."""
    missing = [count * size - have for count, size, have in zip(blocks.shape, shape, weight.shape[:2], strict=True)]
    return F.pad(weight.detach(), (*(0, 0) * (weight.dim() - 2), 0, missing[1], 0, missing[0]))


def _tiles(weight: Tensor, blocks: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Each block row's blocks (down, most, high, wide, *kernel), and which block columns they are (down, most)."""
    (high, wide), (down, across), kernel = shape, blocks.shape, weight.shape[2:]
    tiles = _filled_up(weight, blocks, shape).view(down, high, across, wide, *kernel).transpose(1, 2)
    most = max(int(blocks.sum(1).max()), 1)
    chosen = blocks.long().argsort(dim=1, descending=True, stable=True)[:, :most].to(weight.device)
    rows = torch.arange(down, device=weight.device)[:, None]
    stays = blocks.to(weight.device)[rows, chosen].view(down, most, *(1 for _ in weight.shape))
    return tiles[rows, chosen] * stays, chosen


Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
KERNELS: dict[type[nn.Module], dict[str, Callable[..., nn.Module]]] = {
    nn.Linear: {"tiles": TiledLinear, "bsr": BlockSparseLinear},
    nn.Conv1d: {"tiles": TiledConvolution},
    nn.Conv2d: {"tiles": TiledConvolution},
    nn.Conv3d: {"tiles": TiledConvolution},
}


def fastest_of(
    dense: nn.Module, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None, x: Tensor
) -> tuple[str, nn.Module, dict[str, float]]:
    """The kernel that takes least time for an input like x on this machine, the dense layer being one of them.

    Args:
        dense: the layer as it is, with zeros; of a type in `KERNELS`.
        weight, blocks, shape, gather: as `TiledLinear` takes them.
        x: an input of the layer.

    Returns:
        Its name ("dense", "tiles", "bsr"), the module, and the milliseconds of each that this machine can run.
    """
    makers: dict[str, Callable[[], nn.Module]] = {"dense": lambda: dense}
    for name, maker in KERNELS[type(dense)].items():
        if name != "bsr" or shape[0] == shape[1]:  # torch's product takes square blocks only
            makers[name] = partial(maker, dense, weight, blocks, shape, gather)
    return fastest(makers, x)
