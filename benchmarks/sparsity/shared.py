"""Layers of unified blocks: milliseconds of dense layers and of layers by shared magnitudes, one thread.

All blocks that are not pruned are unified. In linear layers, runs are as wide as the blocks. In convolutions, 3 x 3 and
padded, the best of the widths into which the blocks' channels divide is used. Runs along a window of a convolution
(blocks of 1 x 4 of its matrix) took two to ten times the dense layer's time, because the windows have to be written
out; such layers use the dense kernel.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from secateur.evaluation.kernel_selection import select_kernel
from secateur.sparsity.packed_layers.unified_kernels import unified_kernels
from secateur.sparsity.packed_layers.unified_layers import SharedLinear
from secateur.sparsity.unification.blocks import Blocks, labels_of, project

Row = dict[str, object]
SIZES, WIDTHS, PRUNED, BATCHES = (1024, 2048, 4096), (4, 8), (0.5, 0.8), (1, 16, 64)
MAPS, SHAPES, IMAGES = ((64, 28), (128, 14), (256, 14), (512, 7)), ((1, 4, 1, 1), (4, 4, 1, 1)), (1, 16)


def shared_rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Yield the times of linear layers and of convolutions."""
    del data, seeds
    yield from linear_rows(quick)
    yield from convolution_rows(quick)


def linear_rows(quick: bool) -> Iterator[Row]:
    """Yield the times of linear layers."""
    for size, width, pruned in itertools.product(SIZES[:1] if quick else SIZES, WIDTHS, PRUNED):
        dense = unified_layer(nn.Linear(size, size), (1, width), pruned)
        shared = SharedLinear(dense, width)
        for batch in BATCHES:
            _, _, times = select_kernel(
                {"dense": lambda d=dense: d, "shared": lambda m=shared: m}, torch.randn(batch, size)
            )
            yield {"size": size, "width": width, "pruned": pruned, "batch": batch, **times}


def convolution_rows(quick: bool) -> Iterator[Row]:
    """Yield the times of convolutions."""
    for (channels, image), shape, pruned in itertools.product(MAPS[:1] if quick else MAPS, SHAPES, PRUNED):
        dense = unified_layer(nn.Conv2d(channels, channels, 3, padding=1), shape, pruned)
        kernels = unified_kernels(nn.ModuleDict({"layer": dense}), {"layer.weight": shape})["layer.weight"]
        makers = {"dense": lambda d=dense: d} | {name: partial(make, dense) for name, make in kernels.items()}
        for batch in IMAGES:
            _, _, times = select_kernel(makers, torch.randn(batch, channels, image, image))
            best = min((name for name in times if name != "dense"), key=lambda name: times[name])
            yield {
                "layer": "convolution", "size": channels, "image": image, "shape": shape, "pruned": pruned,
                "batch": batch, "dense": times["dense"], "shared": times[best], "run": best,
            }  # fmt: skip


def unified_layer(dense: nn.Linear | nn.Conv2d, shape: tuple[int, ...], pruned: float) -> nn.Linear | nn.Conv2d:
    """Draw the weights of a layer, and prune or unify all its blocks.

    Args:
        dense: the layer, which is changed.
        shape: the shape of the blocks.
        pruned: the fraction of the blocks that are pruned.
    """
    torch.manual_seed(0)
    dense.reset_parameters()
    blocks = Blocks(tuple(dense.weight.shape), shape)
    with torch.no_grad():
        dense.weight.copy_(project(blocks, dense.weight, labels_of(blocks, dense.weight, pruned, 1 - pruned)))
    return dense


def shared_tables(rows: list[Row]) -> list[str]:
    """Return the lines of a table for each kind of layer."""
    lines = ["Linear layers:", ""]
    lines += ["| size | blocks | pruned | batch | dense | shared | times faster |", "|--:" * 7 + "|"]
    for row in rows:
        if "layer" not in row:
            lines.append(_shared_line([str(row["size"]), f"1 x {row['width']}"], row))
    lines += ["", "Convolutions:", ""]
    lines += ["| channels | image | blocks | pruned | batch | dense | shared | times faster |", "|--:" * 8 + "|"]
    for row in rows:
        if "layer" in row:
            sides = " x ".join(map(str, row["shape"]))  # type: ignore[call-overload]
            lines.append(_shared_line([str(row["size"]), str(row["image"]), sides], row))
    return lines


def _shared_line(first: list[str], row: Row) -> str:
    dense, shared = float(row["dense"]), float(row["shared"])  # type: ignore[arg-type]
    cells = [*first, f"{row['pruned']:.0%}", str(row["batch"])]
    return f"| {' | '.join(cells)} | {dense:.3f} | {shared:.3f} | {dense / shared:.1f} |"
