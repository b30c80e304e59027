"""The commands that prune below the unit, with training: `secateur spp | pivot | lean | unify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateur.cli.app import register_command
from secateur.cli.finished_work import save_in
from secateur.cli.options import (
    Data,
    Device,
    Model,
    Out,
    Program,
    Seed,
    Test,
    Weights,
)
from secateur.cli.output import CommandOutput
from secateur.cli.parsing import parse_block_shapes, parse_keep_text, parse_ratios, parse_shape
from secateur.cli.training_options import BatchSize, Checkpoint, LearningRate, Shape, SkipLayers, Steps

if TYPE_CHECKING:
    from secateur.sparsity.results import SparseResult


@register_command("spp")
def spp_command(
    data: Data,
    out: Out,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="The budget that is kept: macs=0.5 or columns=0.5.", show_default=False),
    ] = None,
    ratios: Annotated[
        list[str] | None,
        typer.Option(
            "--ratio",
            help="The fraction of columns to prune in layers of a name: 'conv2=0.6'. Repeat the option for several.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    groups: Annotated[str, typer.Option("--groups", help="columns, or channels.")] = "columns",
    every: Annotated[int, typer.Option("--every", help="Training steps between two updates of the probabilities.")] = 5,
    steps: Steps = 500,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: Checkpoint = None,
    skip: SkipLayers = None,
    device: Device = "cpu",
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Prune columns of convolutions with probabilities while the network is trained (SPP)."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.sparsity.spp.train import spp

    result = spp(
        model_from(model, weights, None, device), batches_from(data), parse_keep_text(keep) if keep else None,
        ratios=parse_ratios(ratios) if ratios else None, test=batches_from(test) if test else None, groups=groups,
        every=every, tuning_steps=steps, learning_rate=learning_rate, batch_size=batch_size, skip=skip,
        checkpoint=checkpoint, seed=seed,
        progress=progress,
    )  # fmt: skip
    return sparse_output(result, out)


@register_command("pivot")
def pivot_command(
    data: Data,
    density: Annotated[float, typer.Option("--density", help="The fraction of each matrix that is kept.")],
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    shape: Shape = "16x16",
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds over which the density decreases.")] = 3,
    fade: Annotated[
        float | None,
        typer.Option(
            "--fade",
            help="Below 1: the factor by which pruned weights decay in each step before a cut.",
            show_default=False,
        ),
    ] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="The same number of blocks in every block row.")] = False,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training in each round.", min=0)] = 300,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: Checkpoint = None,
    skip: SkipLayers = None,
    device: Device = "cpu",
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Reorder units so that most of the weight is in few dense blocks, and prune the others."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.sparsity.pivoting.pivot import pivot

    result = pivot(
        model_from(model, weights, program, device), batches_from(data), density,
        test=batches_from(test) if test else None, shape=parse_shape(shape), rounds=rounds, tuning_steps=steps,
        learning_rate=learning_rate, batch_size=batch_size, fade=fade, balanced=balanced, skip=skip,
        checkpoint=checkpoint, seed=seed,
        progress=progress,
    )  # fmt: skip
    return sparse_output(result, out)


@register_command("lean")
def lean_command(
    data: Data,
    keep: Annotated[
        list[str], typer.Option("--keep", help="The budget that is kept: kernels=0.05.", show_default=False)
    ],
    out: Out,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    by: Annotated[str, typer.Option("--by", help="lean for chains of kernels; norm or l1 for single ones.")] = "lean",
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds over which the fraction of kernels decreases.")] = 1,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training in each round.", min=0)] = 300,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    variance: Annotated[
        float, typer.Option("--variance", help="Channels with a smaller running variance count as constant.")
    ] = 1e-10,
    checkpoint: Checkpoint = None,
    skip: SkipLayers = None,
    device: Device = "cpu",
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Keep the kernels on the longest chains of operators, and cut the channels that become constant (LEAN)."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.sparsity.lean import lean

    result = lean(
        model_from(model, weights, None, device), batches_from(data), parse_keep_text(keep),
        test=batches_from(test) if test else None, by=by, rounds=rounds, tuning_steps=steps,
        learning_rate=learning_rate, batch_size=batch_size, skip=skip, variance=variance, checkpoint=checkpoint,
        seed=seed,
        progress=progress,
    )  # fmt: skip
    return sparse_output(result, out)


@register_command("unify")
def unify_command(
    data: Data,
    out: Out,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", help="blocks=0.5: the fraction that is not pruned, in place of --pruned.", show_default=False
        ),
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
            help="The shape of a block: outputs x inputs (1x8), a side for each axis (4x4x1x1), or a number of weights "
            "(8) for the nearest shape of each layer. 'conv*=4x4x1x1' is for some layers; repeat the option for more.",
        ),
    ] = ["1x8"],  # noqa: B006 (typer copies it)
    soft_steps: Annotated[int, typer.Option("--soft-steps", help="Training steps with the penalty.", min=1)] = 1000,
    steps: Steps = 500,
    rho: Annotated[float, typer.Option("--rho", help="The weight of the penalty.")] = 1e-2,
    full: Annotated[bool, typer.Option("--full-precision", help="Do not round to 16 bits.")] = False,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: Checkpoint = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only layers that match this glob.", show_default=False)
    ] = None,
    skip: SkipLayers = None,
    device: Device = "cpu",
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Train blocks of one absolute value or of zero (ADMM), and write a file of the compressed size."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.sparsity.unification.train import unify

    result = unify(
        model_from(model, weights, None, device), batches_from(data), parse_keep_text(keep) if keep else None,
        pruned=pruned, unified=unified, test=batches_from(test) if test else None, shape=parse_block_shapes(shape),
        soft_steps=soft_steps, tuning_steps=steps, rho=rho, full_precision=full, learning_rate=learning_rate,
        batch_size=batch_size, only=only, skip=skip, checkpoint=checkpoint, seed=seed,
        progress=progress,
    )  # fmt: skip
    return sparse_output(result, out)


def sparse_output(result: "SparseResult", out: Path) -> CommandOutput:
    """Save a result, and return its report."""
    save_in(out, result.save)
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    text = (
        f"{result.report}\n\nwritten to {out}: {names}\n"
        "secateur.load returns the model, secateur.sparsity.load_fast the one that was timed"
    )
    return CommandOutput(text, {"folder": out, "report": result.report.to_dict()})
