"""The options that commands share, with their help, choices and completion."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.completion import (
    ABLATIONS,
    ALLOCATIONS,
    DEVICES,
    REPAIRS,
    TARGETS,
    choices,
    completer,
    registered_criteria,
)
from secateur.cli.output_paths import checked_file, checked_folder
from secateur.coupling.kinds import KINDS

CALLABLE = "package.module:name or file.py:name"
DATA_HELP = f"Batches of examples: {CALLABLE}, a function that returns them or the object itself."
COUNTS = "A fraction or a number: macs=0.5 or macs=300M, params=, bytes=1MB, units="
COUNTED_BUDGETS = f"The budget that is kept. {COUNTS}. Repeat the option for several budgets."
BUDGETS = (
    f"The budget that is kept. {COUNTS}; a time on this machine: latency=0.5, speedup=2, ms=5, and for language models "
    "decode_latency=0.7, prefill_latency=0.7; or a bound on the change on held-out examples: loss=0.05, "
    "accuracy=-0.01, metric=-0.02. Repeat the option for several budgets."
)
FRACTIONS_HELP = "Budgets of one kind, macs, params, bytes or units: macs=0.75,0.5,0.25."

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"The dense model: {CALLABLE}, a function, a class or a model; or hf:FOLDER, timm:NAME, torchvision:NAME.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="The weights of the model: .safetensors, or .pt/.pth as training scripts write them.",
        show_default=False,
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
Data = Annotated[str, typer.Option("--data", help=DATA_HELP, show_default=False)]
MaybeData = Annotated[str | None, typer.Option("--data", help=DATA_HELP, show_default=False)]
SELECTED = "groups that match this glob, or that the module of this path makes; repeat the option for several."
Only = Annotated[list[str] | None, typer.Option("--only", help=f"Only {SELECTED}", show_default=False)]
Skip = Annotated[list[str] | None, typer.Option("--skip", help=f"No {SELECTED}", show_default=False)]
By = Annotated[
    str,
    typer.Option(
        "--by", help="The criterion; `secateur criteria` lists them.", autocompletion=completer(registered_criteria)
    ),
]
Criteria = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        help="A criterion; repeat the option for several. `secateur criteria` lists them.",
        show_default=False,
        autocompletion=completer(registered_criteria),
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The seed of all random numbers.")]
Ablation = Annotated[
    str,
    typer.Option(
        "--ablation",
        "--removal",
        help="The value of a removed unit while units are scored; impute is a prediction from the other units. "
        "--removal is its former name.",
        metavar=choices(ABLATIONS),
        autocompletion=completer(ABLATIONS),
    ),
]
KeepOption = Annotated[list[str], typer.Option("--keep", help=BUDGETS, show_default=False)]
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
    typer.Option(
        "--kind",
        "--kinds",
        help="Only units of this kind; repeat the option for several.",
        metavar=choices(KINDS),
        autocompletion=completer(KINDS),
        show_default=False,
    ),
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
        "--layout",
        help="config: only sizes that the configuration of a transformers model can express.",
        show_default=False,
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
        help=f"{CALLABLE}, a function of outputs and targets that returns one number, or one for each example.",
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
    str,
    typer.Option(
        "--repair",
        help="The repair after the cut: one, or several separated by commas.",
        metavar=choices(REPAIRS),
        autocompletion=completer(REPAIRS),
    ),
]
Out = Annotated[
    Path, typer.Option("--out", help="The folder to write to.", show_default=False, callback=checked_folder)
]
Onnx = Annotated[
    Path | None,
    typer.Option(
        "--onnx",
        help="Also write the small model as an ONNX file, or as a program of torch.export if it ends in .pt2.",
        show_default=False,
        callback=checked_file,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="The device that the model is moved to: cpu, cuda, cuda:1, mps.",
        autocompletion=completer(DEVICES),
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="A folder for intermediate results. The same command resumes from it after it was stopped.",
    ),
]
AllocationOption = Annotated[
    str,
    typer.Option(
        "--allocation",
        help="The allocation of the budget to groups: auto tries several; several separated by commas are averaged.",
        metavar=choices(ALLOCATIONS),
        autocompletion=completer(ALLOCATIONS),
    ),
]
Target = Annotated[
    str,
    typer.Option(
        "--target",
        help="The device whose kernels the numbers of units fill, where that costs nothing.",
        metavar=choices(TARGETS),
        autocompletion=completer(TARGETS),
    ),
]
RoundTo = Annotated[int | None, typer.Option("--round-to", help="Numbers of units are multiples of this.")]
Floor = Annotated[float, typer.Option("--floor", help="The fewest units of a group; below 1 a fraction.")]
Budgets = Annotated[list[str] | None, typer.Option("--keep", help=FRACTIONS_HELP, show_default=False)]
