"""Matrix pivoting beside oblivious and aligned pruning of the same density, and the time of packed blocks.

LeNet-300-100 on Fashion-MNIST; three rounds of three epochs of fine-tuning for each; first and second layer, which hold
99.6 % of the weights. Published (MPDCompress, the same group, LeNet-300-100 on MNIST): 10x at less than 1 % loss.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
from papers.datasets import Split, fashion
from torch import nn

from secateur.network.folded import copied
from secateur.sparsity.pivoting.packed import fastest
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.search import Matrix, aligned, oblivious
from secateur.training.masks import held_at_zero
from sparsity.lenet import accuracy, train, trained

Row = dict[str, object]
DENSITIES = (0.5, 0.25, 0.125, 0.1)
SHAPE, ROUNDS, EPOCHS = (4, 4), 3, 3
LAYERS = ("first", "second")


def rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Accuracies, then times."""
    split = fashion(data)
    for seed in seeds[: 1 if quick else None]:
        dense = trained(split, seed, 1 if quick else 10)
        yield {"part": "accuracy", "method": "dense", "density": 1.0, "seed": seed, "accuracy": accuracy(dense, split)}
        for density in DENSITIES[1:2] if quick else DENSITIES:
            for method, prune in METHODS.items():
                model, retained = prune(dense, split, density, seed, 1 if quick else EPOCHS)
                row: Row = {"part": "accuracy", "method": method, "density": density, "seed": seed}
                yield row | {"accuracy": accuracy(model, split), "retained": retained}
    yield from times(quick)


def by_pivoting(dense: nn.Module, split: Split, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    found = pivot(
        dense, split.images[:2], density, shape=SHAPE, rounds=ROUNDS, skip="last",
        fit=lambda model: train(model, split, epochs, seed, 5e-4),
    )  # fmt: skip
    once = pivot(dense, split.images[:2], density, shape=SHAPE, skip="last")
    return found.model, mean(once.layers[f"{name}.weight"].retained for name in LAYERS)


def by_blocks(dense: nn.Module, split: Split, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Blocks of the matrix as it lies."""

    def mask(weight: torch.Tensor, at: float) -> tuple[torch.Tensor, float]:
        found = aligned([Matrix("a", weight.abs().double().numpy(), "r", "c")], at, SHAPE)
        blocks = torch.from_numpy(found.blocks["a"]).repeat_interleave(SHAPE[0], 0).repeat_interleave(SHAPE[1], 1)
        return blocks[: weight.shape[0], : weight.shape[1]], found.retained["a"]

    return _masked(dense, split, density, seed, epochs, mask)


def by_weights(dense: nn.Module, split: Split, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Any weights."""

    def mask(weight: torch.Tensor, at: float) -> tuple[torch.Tensor, float]:
        count = round(at * weight.numel())
        threshold = weight.abs().flatten().sort(descending=True).values[count - 1]
        return weight.abs() >= threshold, oblivious(weight.abs().double().numpy(), at)

    return _masked(dense, split, density, seed, epochs, mask)


def _masked(dense, split, density, seed, epochs, mask):
    model = copied(dense, {})
    once = mean(mask(model.get_parameter(f"{name}.weight").detach(), density)[1] for name in LAYERS)
    for number in range(1, ROUNDS + 1):
        at = density ** (number / ROUNDS)
        stays = {f"{name}.weight": mask(model.get_parameter(f"{name}.weight").detach(), at)[0] for name in LAYERS}
        with held_at_zero(model, stays):
            pass
        with held_at_zero(model, stays):
            train(model, split, epochs, seed, 5e-4)
    return model, once


METHODS = {"any weights": by_weights, "blocks as they lie": by_blocks, "pivoted": by_pivoting}


def times(quick: bool) -> Iterator[Row]:
    """Milliseconds of a square layer, dense and packed: the same number of blocks in every block row."""
    for size in (1024,) if quick else (1024, 2048, 4096):
        for density in (0.25,) if quick else (0.5, 0.25, 0.125):
            for batch in (1, 64):
                torch.manual_seed(0)
                dense, side = nn.Linear(size, size), 64
                across = size // side
                blocks = torch.zeros(across, across, dtype=torch.bool)
                for row in blocks:
                    row[torch.randperm(across)[: round(density * across)]] = True
                with torch.no_grad():
                    dense.weight.mul_(blocks.repeat_interleave(side, 0).repeat_interleave(side, 1))
                x = torch.randn(batch, size)
                _, _, spent = fastest(dense, dense.weight, blocks, (side, side), None, x)
                yield {"part": "time", "size": size, "density": density, "batch": batch, **spent}


def page(rows: list[Row]) -> list[str]:
    """Two tables."""
    found: defaultdict[tuple[object, object], list[Row]] = defaultdict(list)
    for row in rows:
        if row["part"] == "accuracy":
            found[row["method"], row["density"]].append(row)
    lines = [f"Dense: {_spread(found['dense', 1.0], 'accuracy')} %.", ""]
    lines += ["| density | " + " | ".join(f"{m}: weight held | accuracy" for m in METHODS) + " |", "|--:" * 7 + "|"]
    for density in DENSITIES:
        cells = [
            f"{_spread(found[m, density], 'retained')} | {_spread(found[m, density], 'accuracy')}" for m in METHODS
        ]
        lines.append(f"| {density:.1%} | {' | '.join(cells)} |")
    lines += [
        "",
        "Milliseconds of a square layer, blocks of 64 x 64, one thread; the ideal is the density times dense:",
        "",
    ]
    lines += ["| size | batch | density | dense | tiles | block sparse rows | of the ideal speed |", "|--:" * 7 + "|"]
    for row in (row for row in rows if row["part"] == "time"):
        dense, tiles, bsr = (float(row[name]) for name in ("dense", "tiles", "bsr"))  # type: ignore[arg-type]
        share = float(row["density"]) * dense / min(tiles, bsr)  # type: ignore[arg-type]
        cells = [str(row["size"]), str(row["batch"]), f"{row['density']:.1%}"]
        lines.append(f"| {' | '.join(cells)} | {dense:.3f} | {tiles:.3f} | {bsr:.3f} | {share:.2f} |")
    return lines


def _spread(rows: list[Row], name: str) -> str:
    values = [100 * float(row[name]) for row in rows]  # type: ignore[arg-type]
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"
