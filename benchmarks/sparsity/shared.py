"""Linear layers of unified blocks: milliseconds dense and by shared magnitudes, one thread.

All blocks that are not pruned are unified.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from secateur.sparsity.timing import fastest
from secateur.sparsity.unification.blocks import Blocks, labels_of, projected
from secateur.sparsity.unification.shared_layers import SharedLinear

Row = dict[str, object]
SIZES, WIDTHS, PRUNED, BATCHES = (1024, 2048, 4096), (4, 8), (0.5, 0.8), (1, 16, 64)


def rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """The times of both."""
    del data, seeds
    for size, width, pruned in itertools.product(SIZES[:1] if quick else SIZES, WIDTHS, PRUNED):
        torch.manual_seed(0)
        dense, blocks = nn.Linear(size, size), Blocks((size, size), (1, width))
        with torch.no_grad():
            dense.weight.copy_(projected(blocks, dense.weight, labels_of(blocks, dense.weight, pruned, 1 - pruned)))
        made = SharedLinear(dense, width)
        for batch in BATCHES:
            _, _, spent = fastest({"dense": lambda d=dense: d, "shared": lambda m=made: m}, torch.randn(batch, size))
            yield {"size": size, "width": width, "pruned": pruned, "batch": batch, **spent}


def page(rows: list[Row]) -> list[str]:
    """One table."""
    lines = ["| size | blocks | pruned | batch | dense | shared | times faster |", "|--:" * 7 + "|"]
    for row in rows:
        dense, own = float(row["dense"]), float(row["shared"])  # type: ignore[arg-type]
        cells = [str(row["size"]), f"1 x {row['width']}", f"{row['pruned']:.0%}", str(row["batch"])]
        lines.append(f"| {' | '.join(cells)} | {dense:.3f} | {own:.3f} | {dense / own:.1f} |")
    return lines
