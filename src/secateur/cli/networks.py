"""The commands that look at a network and rank its units: `secateur inspect | score | compare`."""

from pathlib import Path
from typing import Annotated

import typer

import secateur as sc
from secateur.cli.app import register_command
from secateur.cli.finished_work import save_in
from secateur.cli.options import (
    Ablation,
    AllocationOption,
    AsProgram,
    Budgets,
    By,
    Criteria,
    Data,
    Device,
    Kinds,
    Layout,
    MaybeData,
    MetricOption,
    Model,
    NewBiases,
    Only,
    Out,
    Program,
    Repair,
    RunFolder,
    Seed,
    Sizes,
    Skip,
    Test,
    Weights,
)
from secateur.cli.output import CommandOutput
from secateur.cli.output_paths import checked_file
from secateur.cli.parsing import parse_fractions, parse_repair, parse_sizes, stopping_rule


@register_command("inspect")
def inspect_command(
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    data: MaybeData = None,
    kinds: Kinds = None,
    as_program: AsProgram = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="An HTML page to write, with a picture.", show_default=False, callback=checked_file
        ),
    ] = None,
    device: Device = "cpu",
) -> CommandOutput:
    """Show the groups of a model, their costs, the frozen layers with reasons, and the budgets within reach."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.files import text_writer, write_file
    from secateur.report.network_page import network_page

    dense = model_from(model, weights, program, device)
    network = sc.trace(dense, batches_from(data), kinds=kinds or None, as_program=as_program)
    lines = [str(network)]
    if network.groups:
        lines += ["", "with the same fraction of every group kept:", sc.reachable(network)]
    if page is not None:
        write_file(page, text_writer(network_page(network)))
        lines += ["", f"written to {page}"]
    return CommandOutput("\n".join(lines), {**network.to_dict(), "page": page})


@register_command("score")
def score_command(
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    data: MaybeData = None,
    by: By = "shapley",
    ablation: Ablation = "mean",
    estimator: Annotated[
        str, typer.Option("--estimator", help="The estimator of the Shapley value; exact for taylor-gates-second.")
    ] = "auto",
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="paper: five shared orders and the published statistic (Shapley).")
    ] = None,
    coalitions: Annotated[
        int | None, typer.Option("--coalitions", help="The number of coalitions for each group.")
    ] = None,
    error: Annotated[float | None, typer.Option("--error", help="The standard error that is sufficient.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="The time that is sufficient.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A file that states are written to, and resumed from.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="bfloat16 for the coalitions, where that is faster.")
    ] = None,
    device: Device = "cpu",
    only: Only = None,
    skip: Skip = None,
    seed: Seed = 0,
    progress: bool = True,
) -> CommandOutput:
    """Score every unit and write scores.safetensors; under torchrun the processes share the work."""
    from secateur.cli.imports import batches_from
    from secateur.cli.named_models import model_from
    from secateur.utils.distributed import process_rank
    from secateur.utils.process_groups import shared_processes

    with shared_processes():
        batches = batches_from(data)
        network = sc.trace(model_from(model, weights, program, device), batches)
        scores = sc.score(
            network, batches, by, ablation=ablation, estimator=estimator, protocol=protocol,
            stop=stopping_rule(coalitions, error, seconds), checkpoint=checkpoint, precision=precision, only=only,
            skip=skip, seed=seed, progress=progress,
        )  # fmt: skip
        if process_rank() > 0:
            return CommandOutput("", {})
        save_in(out, lambda folder: scores.save(folder / "scores.safetensors"))
    text = f"{scores}\n\nwritten to {out / 'scores.safetensors'}"
    return CommandOutput(text, {**scores.to_dict(), "file": out / "scores.safetensors"})


@register_command("compare")
def compare_command(
    data: Data,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    metric: MetricOption = None,
    by: Criteria = None,
    keep: Budgets = None,
    sizes: Sizes = None,
    ablation: Ablation = "mean",
    allocation: AllocationOption = "uniform",
    repair: Repair = "refit",
    only: Only = None,
    skip: Skip = None,
    kinds: Kinds = None,
    new_biases: NewBiases = True,
    layout: Layout = None,
    device: Device = "cpu",
    seed: Seed = 0,
    checkpoint: RunFolder = None,
    progress: bool = True,
) -> CommandOutput:
    """Compare criteria: rank, cut and repair by each, and evaluate on examples that no criterion was given."""
    from secateur.cli.imports import batches_from, metric_from
    from secateur.cli.named_models import model_from
    from secateur.comparison.compare import DEFAULT

    comparison = sc.compare(
        model_from(model, weights, program, device), batches_from(data), by or DEFAULT,
        parse_fractions(keep) if keep else None, sizes=parse_sizes(sizes or []),
        test=batches_from(test) if test else None, metric=metric_from(metric), ablation=ablation,
        allocation=allocation, repair=parse_repair(repair), only=only, skip=skip, kinds=kinds or None,
        new_biases=new_biases, layout=layout, seed=seed, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    save_in(out, comparison.save)
    text = f"{comparison}\n\nwritten to {out}: comparison.html and .json"
    return CommandOutput(text, {**comparison.to_dict(), "folder": out})


@register_command("criteria")
def criteria_command() -> CommandOutput:
    """List the criteria: what each costs, whether it reads labels and needs gradients, its source and its options."""
    table = sc.criteria()
    return CommandOutput(str(table), {"criteria": table.to_dict()})
