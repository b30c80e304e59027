"""Convolutions with few columns left: milliseconds of dense and gathered layers, 3 x 3, one thread."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from secateur.sparsity.packed_layers.gathered_conv import GatheredConv2d

Row = dict[str, object]


def gathered_rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Yield the times, which depend neither on data nor on seeds."""
    yield from gathered_times(quick)


def gathered_times(quick: bool) -> Iterator[Row]:
    """Yield the milliseconds of a convolution, dense and gathered, by its width, density and batch."""
    for channels, size in ((64, 14),) if quick else ((64, 28), (128, 14), (256, 14)):
        for density in (0.25,) if quick else (0.5, 0.25, 0.125, 0.0625):
            for batch in (1, 32):
                torch.manual_seed(0)
                dense = nn.Conv2d(channels, channels, 3, padding=1)
                with torch.no_grad():
                    dense.weight.mul_(torch.rand(1, channels, 3, 3) < density)
                x = torch.randn(batch, channels, size, size)
                layers = {"dense": dense, "gathered": GatheredConv2d(dense)}
                yield {"channels": channels, "size": size, "density": density, "batch": batch} | {
                    name: _least_milliseconds(module, x) for name, module in layers.items()
                }


@torch.no_grad()
def _least_milliseconds(module: nn.Module, x: torch.Tensor) -> float:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        module(x)
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def gathered_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table."""
    lines = ["| channels | image | batch | columns left | dense | gathered |", "|--:" * 6 + "|"]
    for row in rows:
        first = [row["channels"], row["size"], row["batch"], f"{row['density']:.1%}"]
        lines.append("| " + " | ".join(map(str, [*first, f"{row['dense']:.3f}", f"{row['gathered']:.3f}"])) + " |")
    return lines
