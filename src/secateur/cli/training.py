"""The command that prunes units while it trains: `secateur train`."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.imports import batches_from, model_from
from secateur.cli.options import (
    Data,
    Device,
    KeepOption,
    Model,
    Only,
    Out,
    Program,
    Seed,
    Skip,
    Test,
    Weights,
    parse_keep_text,
)
from secateur.cli.sparsity import BatchSize, LearningRate, States
from secateur.results import Result
from secateur.training.prune_while_training import prune_while_training


def train(
    data: Data,
    keep: KeepOption,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    by: Annotated[
        str, typer.Option("--by", help="taylor: gates by the gradients of the training; or any other criterion.")
    ] = "taylor",
    towards: Annotated[
        str, typer.Option("--towards", help="dense: the network as it was, and labels if any; or labels alone.")
    ] = "dense",
    every: Annotated[int, typer.Option("--every", help="Steps between two removals.", min=1)] = 10,
    units_per_step: Annotated[
        int | None, typer.Option("--units-per-step", help="Units at a removal: 2 % by default.", show_default=False)
    ] = None,
    round_to: Annotated[int, typer.Option("--round-to", help="Numbers of units are multiples of this.")] = 1,
    floor: Annotated[float, typer.Option("--floor", help="The fewest units of a group; below 1 a fraction.")] = 1,
    steps: Annotated[int, typer.Option("--steps", help="Steps of training once the budget is met.", min=0)] = 500,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: States = None,
    only: Only = None,
    skip: Skip = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Prune units, a few at a time, while the network is trained, and write the small model and the report."""
    result = prune_while_training(
        model_from(model, weights, program).to(device), batches_from(data), parse_keep_text(keep), by,
        test=batches_from(test) if test else None, towards=towards, every=every, units_per_step=units_per_step,
        round_to=round_to, floor=floor, tuning_steps=steps, learning_rate=learning_rate, batch_size=batch_size,
        only=only, skip=skip, checkpoint=checkpoint, seed=seed,
    )  # fmt: skip
    finish_cut(result, out)


def finish_cut(result: Result, out: Path) -> None:
    """Write what pruning units gave, and print the report."""
    result.save(out)
    print(result.report)
    print(f"\nwritten to {out}: recipe.json, weights.safetensors, scores.safetensors, report.html, .json and .txt")
