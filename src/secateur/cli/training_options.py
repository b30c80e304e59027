"""The options that commands share that train."""

from pathlib import Path
from typing import Annotated

import typer

LearningRate = Annotated[float, typer.Option("--learning-rate", help="The learning rate of Adam.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Examples for each training step.", min=1)]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A folder that states are written to, and resumed from."),
]
SkipLayers = Annotated[
    list[str] | None, typer.Option("--skip", help="Layers that match this glob are not pruned.", show_default=False)
]
Steps = Annotated[int, typer.Option("--steps", help="Training steps after the last selection.", min=0)]
Shape = Annotated[str, typer.Option("--shape", help="The shape of a block: outputs x inputs.")]
