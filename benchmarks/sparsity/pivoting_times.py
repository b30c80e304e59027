"""Milliseconds of layers, dense and packed, with the same number of blocks in every block row."""

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from secateur.evaluation.kernel_selection import select_kernel
from secateur.sparsity.packed_layers.block_kernels import packed_kernels

Row = dict[str, object]
LAYERS_TIMED = (
    ("linear", 1024, 0, 64), ("linear", 2048, 0, 64), ("linear", 4096, 0, 64), ("linear", 2048, 0, 16),
    ("convolution", 256, 14, 16), ("convolution", 256, 14, 64), ("convolution", 512, 7, 64),
)  # fmt: skip


def layer_times(quick: bool) -> Iterator[Row]:
    """Yield the times of each layer, batch size and density."""
    cases = LAYERS_TIMED[:1] if quick else LAYERS_TIMED
    for (kind, size, image, side), batch in itertools.product(cases, (1, 64)):
        for density in (0.25,) if quick else (0.5, 0.25, 0.125):
            if density * (size // side) < 1:
                continue  # less than a block in each block row
            torch.manual_seed(0)
            dense = nn.Linear(size, size) if kind == "linear" else nn.Conv2d(size, size, 3, padding=1)
            blocks = _random_blocks(size // side, density)
            mask = blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)
            with torch.no_grad():
                dense.weight.mul_(mask.view(*mask.shape, *(1 for _ in dense.weight.shape[2:])))
            x = torch.randn(batch, size, *(image, image) * (kind != "linear"))
            kernels = packed_kernels(dense, blocks, (side, side), None)
            makers = {"dense": lambda layer=dense: layer}
            makers |= {name: partial(make, dense) for name, make in kernels.items()}
            _, _, milliseconds = select_kernel(makers, x)
            row = {"part": "time", "layer": kind, "size": size, "image": image, "side": side}
            yield row | {"density": density, "batch": batch, **milliseconds}


def _random_blocks(across: int, density: float) -> torch.Tensor:
    """Return the blocks that are kept, as many in every block row. (block rows, block columns)"""
    blocks = torch.zeros(across, across, dtype=torch.bool)
    for row in blocks:
        row[torch.randperm(across)[: round(density * across)]] = True
    return blocks
