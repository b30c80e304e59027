"""The commands for structure below the unit: `secateur spp | pivot | lean | unify`. Each trains by itself."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.imports import batches_from, model_from
from secateur.cli.options import (
    Data,
    Device,
    Model,
    Out,
    Program,
    Seed,
    Test,
    Weights,
    parse_block_shapes,
    parse_keep_text,
    parse_ratios,
    parse_shape,
)
from secateur.sparsity.lean import lean as pruned_by_chains
from secateur.sparsity.pivoting.pivot import pivot as pivoted
from secateur.sparsity.results import SparseResult
from secateur.sparsity.spp.train import spp as pruned_by_spp
from secateur.sparsity.unification.train import unify as unified_model

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
    result = pruned_by_spp(
        model_from(model, weights, None).to(device), batches_from(data), parse_keep_text(keep) if keep else None,
        ratios=parse_ratios(ratios) if ratios else None, test=batches_from(test) if test else None, groups=groups,
        every=every, tuning_steps=steps, learning_rate=learning_rate, batch_size=batch_size, skip=skip,
        checkpoint=checkpoint, seed=seed,
    )  # fmt: skip
    finish(result, out)


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
    result = pivoted(
        model_from(model, weights, program).to(device), batches_from(data), density,
        test=batches_from(test) if test else None, shape=parse_shape(shape), rounds=rounds, tuning_steps=steps,
        learning_rate=learning_rate, batch_size=batch_size, fade=fade, balanced=balanced, skip=skip,
        checkpoint=checkpoint, seed=seed,
    )  # fmt: skip
    finish(result, out)


def lean(
    data: Data,
    keep: Annotated[list[str], typer.Option("--keep", help="What is left: kernels=0.05.", show_default=False)],
    out: Out,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    by: Annotated[str, typer.Option("--by", help="lean for chains of kernels; norm or l1 for single ones.")] = "lean",
    rounds: Annotated[int, typer.Option("--rounds", help="The fraction of kernels falls over these.")] = 1,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training in each round.", min=0)] = 300,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    variance: Annotated[
        float, typer.Option("--variance", help="Channels whose batch norm varies less are constants.")
    ] = 1e-10,
    checkpoint: States = None,
    skip: Layers = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Keep the kernels on the longest chains of operators, prune the others, and cut the channels that die (LEAN)."""
    result = pruned_by_chains(
        model_from(model, weights, None).to(device), batches_from(data), parse_keep_text(keep),
        test=batches_from(test) if test else None, by=by, rounds=rounds, tuning_steps=steps,
        learning_rate=learning_rate, batch_size=batch_size, skip=skip, variance=variance, checkpoint=checkpoint,
        seed=seed,
    )  # fmt: skip
    finish(result, out)


def unify(
    data: Data,
    out: Out,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="blocks=0.5: what is not pruned, in place of --pruned.", show_default=False),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    pruned: Annotated[
        float | None,
        typer.Option("--pruned", help="The fraction of blocks that become zero; 0.5 by default.", show_default=False),
    ] = None,
    unified: Annotated[
        float | None,
        typer.Option(
            "--unified", help="The fraction that get one absolute value; all others by default.", show_default=False
        ),
    ] = None,
    shape: Annotated[
        list[str],
        typer.Option(
            "--shape",
            help="Of a block: outputs x inputs (1x8), a side for each axis (4x4x1x1), or a number of weights (8) for "
            "the nearest shape of each layer; 'conv*=4x4x1x1' for some layers, again for each more.",
        ),
    ] = ["1x8"],  # noqa: B006 (typer copies it)
    soft_steps: Annotated[int, typer.Option("--soft-steps", help="Steps that draw weights to blocks.", min=1)] = 1000,
    steps: Steps = 500,
    rho: Annotated[float, typer.Option("--rho", help="Of the penalty.")] = 1e-2,
    full: Annotated[bool, typer.Option("--full-precision", help="Do not round to 16 bits.")] = False,
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
    """Train blocks of one absolute value, or of zero (ADMM), and write the network at its compressed size, too."""
    result = unified_model(
        model_from(model, weights, None).to(device), batches_from(data), parse_keep_text(keep) if keep else None,
        pruned=pruned, unified=unified, test=batches_from(test) if test else None, shape=parse_block_shapes(shape),
        soft_steps=soft_steps, tuning_steps=steps, rho=rho, full_precision=full, learning_rate=learning_rate,
        batch_size=batch_size, only=only, skip=skip, checkpoint=checkpoint, seed=seed,
    )  # fmt: skip
    finish(result, out)


def finish(result: SparseResult, out: Path) -> None:
    """Write a result, and print its report."""
    result.save(out)
    print(result.report)
    print(f"\nwritten to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    print("secateur.load gives the model, secateur.sparsity.load_fast the one that was timed")


COMMANDS = (spp, pivot, lean, unify)
