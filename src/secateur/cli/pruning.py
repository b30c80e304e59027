"""The commands that prune units: `secateur demo | prune | report`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import secateur as sc
from secateur.cli.app import register_command
from secateur.cli.finished_work import save_in
from secateur.cli.options import (
    Ablation,
    AllocationOption,
    AsProgram,
    By,
    Data,
    Device,
    Floor,
    Holdout,
    KeepOption,
    Kinds,
    Layout,
    MaybeKeep,
    MetricOption,
    Model,
    NewBiases,
    Only,
    Onnx,
    Out,
    Program,
    Repair,
    RoundTo,
    RunFolder,
    Seed,
    Sizes,
    Skip,
    Target,
    Test,
    Weights,
)
from secateur.cli.output import CommandOutput
from secateur.cli.output_paths import checked_folder
from secateur.cli.parsing import parse_allocation, parse_keep_text, parse_repair, parse_sizes
from secateur.errors import BudgetError

if TYPE_CHECKING:
    from secateur.pruning.results import Result

PRETRAINED = "pretrained"


@register_command("demo")
def demo_command(
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.", callback=checked_folder)] = Path(
        "out/demo"
    ),
    keep: KeepOption = ["macs=0.5"],  # noqa: B006 (typer copies it)
    by: By = "obs",
    onnx: Onnx = None,
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Prune the network that ships with Secateur, and test it on images of its test set."""
    from secateur import demo
    from secateur.deployment.export import check_export_path

    check_export_path(onnx)
    images = sum(len(batch) for batch in demo.calibration())
    print(f"{images} images without labels to score the units\n", file=sys.stderr)
    result = sc.prune(
        demo.network(), demo.calibration(), parse_keep_text(keep), by, test=demo.test(), seed=seed, progress=progress
    )
    return saved_output(result, out, onnx)


@register_command("prune")
def prune_command(
    data: Data,
    out: Out,
    keep: MaybeKeep = None,
    sizes: Sizes = None,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    holdout: Holdout = None,
    metric: MetricOption = None,
    by: By = "obs",
    ablation: Ablation = "mean",
    allocation: AllocationOption = "auto",
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of scoring and planning.")] = 1,
    round_to: RoundTo = None,
    target: Target = "auto",
    floor: Floor = 1,
    repair: Repair = "refit,adapt",
    only: Only = None,
    skip: Skip = None,
    kinds: Kinds = None,
    as_program: AsProgram = False,
    new_biases: NewBiases = True,
    layout: Layout = None,
    context_length: Annotated[
        int | None,
        typer.Option("--context-length", help="Tokens in the cache or the prompt that generation is timed with."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="A limit of time; the report names the steps that were left out.")
    ] = None,
    onnx: Onnx = None,
    device: Device = "cpu",
    seed: Seed = 0,
    checkpoint: RunFolder = None,
    progress: bool = True,
) -> CommandOutput:
    """Prune a model, print the comparison, and write the small model and the report; torchrun shares the work."""
    from secateur.cli.imports import batches_from, metric_from
    from secateur.cli.named_models import model_from
    from secateur.deployment.export import check_export_path
    from secateur.utils.distributed import process_rank
    from secateur.utils.process_groups import shared_processes

    if not keep and not sizes:
        raise BudgetError("--keep is missing; give a budget, --keep macs=0.5, or what single groups keep, by --size")
    check_export_path(onnx)
    with shared_processes():
        dense, batches = model_from(model, weights, program, device), batches_from(data)
        result = sc.prune(
            dense, batches, parse_keep_text(keep) if keep else None, by, sizes=parse_sizes(sizes or []),
            test=batches_from(test) if test else None, holdout=holdout, metric=metric_from(metric),
            ablation=ablation, allocation=parse_allocation(allocation), rounds=rounds, round_to=round_to, target=target,
            floor=floor, repair=parse_repair(repair), only=only, skip=skip, kinds=kinds or None, as_program=as_program,
            new_biases=new_biases, layout=layout, context_length=context_length, seconds=seconds, seed=seed,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        if process_rank() > 0:  # the first process writes
            return CommandOutput("", {})
    output = saved_output(result, out, onnx)
    return output if layout is None else with_pretrained(output, result, out / PRETRAINED)


@register_command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(help="A folder that prune wrote.")],
) -> CommandOutput:
    """Print a saved report."""
    from secateur.report.saved_report import saved_report

    return CommandOutput(saved_report(folder, False), json.loads(saved_report(folder, True)))


def with_pretrained(output: CommandOutput, result: "Result", folder: Path) -> CommandOutput:
    """Save a model for its library, and return the output of a command with the folder."""
    save_in(folder, result.save_pretrained)
    line = f"{folder}: for from_pretrained of the transformers library"
    return CommandOutput(f"{output.text}\n{line}", {**output.record, "pretrained": folder})


def saved_output(result: "Result", out: Path, onnx: Path | None) -> CommandOutput:
    """Save a result, export its model if that was requested, and return the report."""
    save_in(out, result.save)
    files = "recipe.json, weights.safetensors, scores.safetensors, report.html, .json and .txt"
    lines = [str(result.report), "", f"written to {out}: {files}"]
    export = None if onnx is None else result.export(onnx)
    lines += [] if export is None else ["", f"written to {export}"]
    record = {
        "folder": out,
        "report": result.report.to_dict(),
        "onnx": None if export is None else export.to_dict(),
    }
    return CommandOutput("\n".join(lines), record)
