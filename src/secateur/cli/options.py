"""The options that commands share, with their help."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option("--model", help="package.module:callable that returns the dense model.", show_default=False),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="Its weights: .safetensors, or .pt/.pth as training scripts write them.", show_default=False
    ),
]
Program = Annotated[
    Path | None,
    typer.Option(
        "--program",
        help="A .pt2 exported program in place of a model. It is code: give only a file that you trust.",
        show_default=False,
    ),
]
Data = Annotated[
    str, typer.Option("--data", help="package.module:callable that returns batches of examples.", show_default=False)
]
MaybeData = Annotated[
    str | None,
    typer.Option("--data", help="package.module:callable that returns batches of examples.", show_default=False),
]
Only = Annotated[list[str] | None, typer.Option("--only", help="Only groups that match this glob.", show_default=False)]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="No groups that match this glob.", show_default=False)]
By = Annotated[str, typer.Option("--by", help="The criterion.")]
Seed = Annotated[int, typer.Option("--seed", help="The seed of all random numbers.")]
Ablation = Annotated[
    str,
    typer.Option(
        "--ablation",
        "--removal",
        help="The value of a removed unit: mean, zero, or impute, a prediction from the other units.",
    ),
]
KeepOption = Annotated[
    list[str],
    typer.Option(
        "--keep",
        help="The budget that is kept: macs=0.5 or 300M, params=, bytes=, units=, latency=0.5, speedup=2, ms=5; or a "
        "bound: loss=0.05, accuracy=-0.01, metric=-0.02.",
        show_default=False,
    ),
]
MaybeKeep = Annotated[list[str] | None, KeepOption.__metadata__[0]]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        help="What a group keeps, whatever the budget: layer1.0.conv1=24 units, or layer1.*=0.5 of them.",
        show_default=False,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Only units of this kind: channels, neurons, residual, heads, or blocks."),
]
AsProgram = Annotated[bool, typer.Option("--as-program", help="Cut the exported program in place of the model's code.")]
NewBiases = Annotated[
    bool,
    typer.Option(
        "--new-biases/--no-new-biases", help="Layers without a bias may get one for the means of removed units."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout", help="config: cuts that the configuration of a transformers model can say.", show_default=False
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", help="Other examples to measure on, in place of a part of the data.", show_default=False),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="file.py:callable or package.module:callable of outputs and targets: one number, or one for each example.",
        show_default=False,
    ),
]
Holdout = Annotated[
    float | None,
    typer.Option(
        "--holdout",
        help="The fraction of the data kept away for the report: an eighth by default, 0 for none.",
        show_default=False,
    ),
]
Repair = Annotated[
    str, typer.Option("--repair", help="mean, batchnorm, refit, adapt, tune, several with commas, or none.")
]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to.", show_default=False)]
Onnx = Annotated[
    Path | None,
    typer.Option(
        "--onnx",
        help="Also write the small model as an ONNX file, or as a program of torch.export if it ends in .pt2.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="The device: cpu, cuda, mps.")]
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
