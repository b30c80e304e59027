"""The command that measures what is lost against what is saved: `secateur tradeoff`."""

from typing import Annotated

import typer

import secateur as sc
from secateur.cli.app import register_command
from secateur.cli.finished_work import save_in
from secateur.cli.options import (
    Ablation,
    AllocationOption,
    Budgets,
    By,
    Data,
    Device,
    Floor,
    Kinds,
    Layout,
    MetricOption,
    Model,
    NewBiases,
    Only,
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
from secateur.cli.parsing import parse_allocation, parse_bounds, parse_fractions, parse_repair, parse_sizes
from secateur.cli.pruning import PRETRAINED, with_pretrained


@register_command("tradeoff")
def tradeoff_command(
    data: Data,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    metric: MetricOption = None,
    by: By = "obs",
    keep: Budgets = None,
    sizes: Sizes = None,
    pick: Annotated[
        list[str] | None,
        typer.Option("--pick", help="Save the smallest network within a bound: accuracy=-0.01.", show_default=False),
    ] = None,
    ablation: Ablation = "mean",
    allocation: AllocationOption = "auto",
    round_to: RoundTo = None,
    target: Target = "auto",
    floor: Floor = 1,
    repair: Repair = "refit,adapt",
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
    """Prune to several budgets from one scoring, and show what is lost against what is saved."""
    from secateur.cli.imports import batches_from, metric_from
    from secateur.cli.named_models import model_from

    bounds = parse_bounds(pick or [])
    curve = sc.tradeoff(
        model_from(model, weights, program, device), batches_from(data), parse_fractions(keep) if keep else None, by,
        sizes=parse_sizes(sizes or []), test=batches_from(test) if test else None, metric=metric_from(metric),
        ablation=ablation, allocation=parse_allocation(allocation), round_to=round_to, target=target, floor=floor,
        repair=parse_repair(repair), only=only, skip=skip, kinds=kinds or None, new_biases=new_biases,
        layout=layout, seed=seed, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    save_in(out, curve.save)
    lines = [str(curve), "", f"written to {out}: tradeoff.html, .json and .txt"]
    record = {"folder": out, "measure": curve.measure, "examples": curve.examples, "points": curve.to_dict()}
    if not bounds:
        return CommandOutput("\n".join(lines), record)
    result, folder = curve.pick(**bounds), out / "model"
    save_in(folder, result.save)
    lines.append(f"the picked network is written to {folder}")
    output = CommandOutput("\n".join(lines), {**record, "model": folder})
    return output if layout is None else with_pretrained(output, result, folder / PRETRAINED)
