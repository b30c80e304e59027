"""The command that prunes units while the network is trained: `secateur train`."""

from typing import Annotated

import typer

from secateur.cli.app import register_command
from secateur.cli.options import (
    COUNTED_BUDGETS,
    Data,
    Device,
    Floor,
    Model,
    Only,
    Onnx,
    Out,
    Program,
    Seed,
    Skip,
    Test,
    Weights,
)
from secateur.cli.output import CommandOutput
from secateur.cli.parsing import parse_keep_text
from secateur.cli.pruning import saved_output
from secateur.cli.training_options import BatchSize, Checkpoint, LearningRate


@register_command("train")
def train_command(
    data: Data,
    keep: Annotated[list[str], typer.Option("--keep", help=COUNTED_BUDGETS, show_default=False)],
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    by: Annotated[
        str, typer.Option("--by", help="taylor: gates by the gradients of the training; or any other criterion.")
    ] = "taylor",
    towards: Annotated[
        str,
        typer.Option("--towards", help="dense: the outputs of the dense network, and labels if any; or labels alone."),
    ] = "dense",
    every: Annotated[int, typer.Option("--every", help="Steps between two removals.", min=1)] = 10,
    units_per_step: Annotated[
        int | None, typer.Option("--units-per-step", help="Units at a removal: 2 % by default.", show_default=False)
    ] = None,
    round_to: Annotated[int, typer.Option("--round-to", help="Numbers of units are multiples of this.")] = 1,
    floor: Floor = 1,
    steps: Annotated[int, typer.Option("--steps", help="Training steps after the budget is met.", min=0)] = 500,
    learning_rate: LearningRate = 1e-3,
    batch_size: BatchSize = 64,
    checkpoint: Checkpoint = None,
    only: Only = None,
    skip: Skip = None,
    onnx: Onnx = None,
    device: Device = "cpu",
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Prune units, a few at a time, while the network is trained, and write the small model and the report."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.deployment.export import check_export_path
    from secateur.training.prune_while_training import prune_while_training

    check_export_path(onnx)
    result = prune_while_training(
        model_from(model, weights, program, device), batches_from(data), parse_keep_text(keep), by,
        test=batches_from(test) if test else None, towards=towards, every=every, units_per_step=units_per_step,
        round_to=round_to, floor=floor, tuning_steps=steps, learning_rate=learning_rate, batch_size=batch_size,
        only=only, skip=skip, checkpoint=checkpoint, seed=seed,
        progress=progress,
    )  # fmt: skip
    return saved_output(result, out, onnx)
