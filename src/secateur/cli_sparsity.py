"""The commands for structure below the unit: `secateur spp | pivot | unify`. Each trains, for a while, by itself."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from secateur.cli_options import (
    Data,
    Device,
    Model,
    Out,
    Program,
    Seed,
    Test,
    Weights,
    parse_keep,
    parse_ratios,
    parse_shape,
)
from secateur.data import Batch, as_batches, device_of, on_device
from secateur.network.copies import copied
from secateur.report.measure import judged
from secateur.sources import batches_from, model_from
from secateur.sparsity.pivoting.pivot import pivot as pivoted
from secateur.sparsity.spp.spp import SPP
from secateur.sparsity.unification.codec import halved, save_compressed
from secateur.sparsity.unification.shared import shared
from secateur.sparsity.unification.unification import Unification
from secateur.training.loop import Loop, Settings

UPDATES = 8
MEASURES = (("loss", ".4g"), ("accuracy", ".2%"), ("agreement with the dense network", ".2%"))
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Of Adam.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Examples drawn for each step.", min=1)]
States = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A folder to write states to now and then, and to go on from."),
]
Layers = Annotated[
    list[str] | None, typer.Option("--skip", help="Layers that match this glob stay whole.", show_default=False)
]
Steps = Annotated[int, typer.Option("--steps", help="Steps of training once all is chosen.", min=0)]
Shape = Annotated[str, typer.Option("--shape", help="Of a block: outputs x inputs.")]


@dataclass(frozen=True, eq=False)
class Workshop:
    """What all three train with: the network as it was, the examples, and how."""

    dense: nn.Module
    cells: Sequence[Batch]
    test: Sequence[Batch] | None
    settings: Settings

    @property
    def example(self) -> Batch:
        return self.cells[0]

    def loop(self, model: nn.Module) -> Loop:
        optimizer = torch.optim.Adam(
            [each for each in model.parameters() if each.requires_grad], self.settings.learning_rate
        )
        return Loop(model, self.dense, self.cells, optimizer, self.settings)

    def told(self, model: nn.Module) -> str:
        """Both networks on the examples, in a line."""
        cells = [on_device(cell, device_of(model)) for cell in self.test or self.cells]
        found = [judged(each, self.dense, cells, None) for each in (self.dense, model)]
        words = []
        for number, (name, form) in enumerate(MEASURES):
            dense, small = (float(each[number].nanmean()) for each in found)
            if small == small:  # NaN where there is no such thing
                words.append(f"{name} {dense:{form}} -> {small:{form}}")
        which = "that it was not trained on" if self.test else "that it was trained on"
        return f"{sum(cell.size or 1 for cell in cells):,} examples {which}: {', '.join(words)}"


def _workshop(
    model: str | None, weights: Path | None, program: Path | None, data: str, test: str | None, device: str,
    settings: Settings,
) -> Workshop:  # fmt: skip
    dense = model_from(model, weights, program).to(device)
    return Workshop(dense, as_batches(batches_from(data)), as_batches(batches_from(test)) if test else None, settings)


def spp(
    data: Data,
    out: Out,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="What is left: macs=0.5 or columns=0.5.", show_default=False),
    ] = None,
    ratios: Annotated[
        list[str] | None,
        typer.Option(
            "--ratio",
            help="The fraction of columns to prune in layers of a name: 'conv2=0.6', again for each more.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    groups: Annotated[str, typer.Option("--groups", help="columns, or channels.")] = "columns",
    every: Annotated[int, typer.Option("--every", help="Steps between two moves of the chances.")] = 5,
    steps: Steps = 500,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: States = None,
    skip: Layers = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Prune columns of convolutions with probabilities while the network is trained (SPP)."""
    about = repr((keep, ratios, groups, every, steps, skip))
    settings = Settings(learning_rate, batch_size, seed, checkpoint, about, progress=True)
    shop = _workshop(model, weights, None, data, test, device, settings)
    work = copied(shop.dense, {})
    loop = shop.loop(work)
    method = SPP(
        work, shop.example, loop.optimizer, parse_keep(keep) if keep else None,
        ratios=parse_ratios(ratios) if ratios else None, every=every, groups=groups, skip=skip, seed=seed,
    )  # fmt: skip
    spent = loop.until("chances", lambda: method.done, method)
    loop.run("fixed masks", steps, method)
    result = method.finish()
    result.save(out)
    print(f"{result}\n\n{spent:,} steps until every layer had its ratio, {steps:,} with fixed masks")
    print(f"{shop.told(result.model)}\n\nwritten to {out}: recipe.json and weights.safetensors")


def pivot(
    data: Data,
    density: Annotated[float, typer.Option("--density", help="The fraction of each matrix that stays.")],
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    shape: Shape = "16x16",
    rounds: Annotated[int, typer.Option("--rounds", help="The density falls over these.")] = 3,
    fade: Annotated[
        float | None,
        typer.Option("--fade", help="Below 1: before each cut what goes shrinks by this a step.", show_default=False),
    ] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="As many blocks in every block row.")] = False,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training in each round.", min=0)] = 300,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: States = None,
    skip: Layers = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Reorder units so that the weight lies in few dense blocks, and prune the rest."""
    about = repr((density, shape, rounds, fade, balanced, steps, skip))
    settings = Settings(learning_rate, batch_size, seed, checkpoint, about, progress=True)
    shop = _workshop(model, weights, program, data, test, device, settings)
    numbers = itertools.count(1)

    def fit(work: nn.Module) -> None:
        shop.loop(work).run(f"round {next(numbers)}", steps)

    found = pivoted(
        shop.dense, shop.example, density, shape=parse_shape(shape), rounds=rounds, fit=fit, fade=fade,
        balanced=balanced, skip=skip, seed=seed,
    )  # fmt: skip
    found.save(out)
    _, kernels = found.packed(on_device(shop.example, device_of(found.model)))
    print(f"{found}\n\nfastest here: {_listed(kernels)}")
    print(f"{shop.told(found.model)}\n\nwritten to {out}: recipe.json, weights.safetensors and pivot.json")


def unify(
    data: Data,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    pruned: Annotated[float, typer.Option("--pruned", help="The fraction of blocks that become zero.")] = 0.5,
    unified: Annotated[
        float | None,
        typer.Option("--unified", help="The fraction that get one absolute value; all others by default."),
    ] = None,
    shape: Shape = "1x8",
    soft_steps: Annotated[int, typer.Option("--soft-steps", help="Steps that draw weights to blocks.", min=1)] = 1000,
    steps: Steps = 500,
    rho: Annotated[float, typer.Option("--rho", help="Of the penalty.")] = 1e-2,
    full: Annotated[bool, typer.Option("--full-precision", help="Do not round to 16 bits in the file.")] = False,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: States = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only layers that match this glob.", show_default=False)
    ] = None,
    skip: Layers = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Train blocks of one absolute value, or of zero (ADMM), and write the network at its compressed size."""
    about = repr((pruned, unified, shape, soft_steps, steps, rho, only, skip))
    settings = Settings(learning_rate, batch_size, seed, checkpoint, about, progress=True)
    shop = _workshop(model, weights, None, data, test, device, settings)
    work, sizes = copied(shop.dense, {}), parse_shape(shape)
    loop, every = shop.loop(work), max(soft_steps // UPDATES, 1)
    method = Unification(
        work, loop.optimizer, pruned, unified, shape=sizes, rho=rho, every=every, only=only, skip=skip
    )  # fmt: skip
    loop.run("towards blocks", soft_steps, method)
    print("\n".join(f"  {name}: {far:.1%} of it is away from its blocks" for name, far in method.residuals.items()))
    method.harden()
    loop.run("blocks", steps, method)
    method.release()
    small = work if full else halved(work)
    shapes = {f"{each.name}.weight": sizes for each in method.layers}
    written = save_compressed(small, out / "model.blocks", shapes)
    _, kernels = shared(small, on_device(shop.example, device_of(small)), shapes)
    print(f"\n{written}\nfastest here: {_listed(kernels)}\n{shop.told(small)}\n\nwritten to {out / 'model.blocks'}")


def _listed(kernels: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kernel}" for name, kernel in kernels.items())


COMMANDS = (spp, pivot, unify)
