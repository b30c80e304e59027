"""The command line: `secateur demo | inspect | score | compare | prune | report | train | spp | pivot | lean |
unify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import secateur as sc
from secateur import demo as shipped
from secateur.cli import sparsity, training
from secateur.cli.imports import batches_from, model_from
from secateur.cli.options import (
    Ablation,
    AsProgram,
    By,
    Data,
    Device,
    KeepOption,
    Kinds,
    MaybeData,
    Model,
    NewBiases,
    Only,
    Out,
    Program,
    Repair,
    Seed,
    Skip,
    Test,
    Weights,
    handle_errors,
    parse_fractions,
    parse_keep_text,
    parse_repair,
    stopping_rule,
)
from secateur.comparison import DEFAULT
from secateur.errors import NameMatchError
from secateur.files import text_writer, write_file
from secateur.report.network_page import network_page
from secateur.report.saved_report import saved_report
from secateur.utils.distributed import launched_processes, process_rank
from secateur.version import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"secateur {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make a trained neural network smaller by cutting whole units and solving for what makes up for them."""


@app.command()
@handle_errors
def demo(
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("out/demo"),
    keep: KeepOption = ["macs=0.5"],  # noqa: B006 (typer copies it)
    by: By = "obs",
    seed: Seed = 0,
) -> None:
    """Prune the network that ships with Secateur, and test it on images it never saw."""
    model = shipped.network()
    print(f"{sum(len(batch) for batch in shipped.calibration())} images without labels to judge the units by\n")
    result = sc.prune(model, shipped.calibration(), parse_keep_text(keep), by, test=shipped.test(), seed=seed)
    training.finish_cut(result, out)


@app.command()
@handle_errors
def inspect(
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    data: MaybeData = None,
    kinds: Kinds = None,
    as_program: AsProgram = False,
    page: Annotated[
        Path | None, typer.Option("--page", help="An HTML page to write, with a picture.", show_default=False)
    ] = None,
) -> None:
    """Show what can be cut in a model, what it costs, what is frozen and why, and what can be reached."""
    network = sc.trace(model_from(model, weights, program), _example(data), kinds=kinds or None, as_program=as_program)
    print(network)
    if network.groups:
        print(f"\nwith the same share of every group left:\n{sc.reachable(network)}")
    if page is not None:
        write_file(page, text_writer(network_page(network)))
        print(f"\nwritten to {page}")


@app.command()
@handle_errors
def score(
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    data: MaybeData = None,
    by: By = "shapley",
    ablation: Ablation = "mean",
    estimator: Annotated[
        str, typer.Option("--estimator", help="Of the Shapley value; exact for taylor-gates-second.")
    ] = "auto",
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="paper: five shared orders and the published statistic (Shapley).")
    ] = None,
    coalitions: Annotated[int | None, typer.Option("--coalitions", help="Enough of them for each group.")] = None,
    error: Annotated[float | None, typer.Option("--error", help="Errors that are small enough.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Time enough for all.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A file to write to now and then, and to go on from.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="bfloat16 for the coalitions, where that is faster.")
    ] = None,
    device: Device = "cpu",
    only: Only = None,
    skip: Skip = None,
    seed: Seed = 0,
) -> None:
    """Score every unit and write scores.safetensors; under torchrun the processes share the work."""
    with launched_processes():
        batches = _example(data)
        network = sc.trace(model_from(model, weights, program).to(device), batches)
        scores = sc.score(
            network,
            batches,
            by,
            ablation=ablation,
            estimator=estimator,
            protocol=protocol,
            stop=stopping_rule(coalitions, error, seconds),
            checkpoint=checkpoint,
            precision=precision,
            only=only,
            skip=skip,
            seed=seed,
        )
        if process_rank() == 0:
            scores.save(out / "scores.safetensors")
            print(scores)
            print(f"\nwritten to {out / 'scores.safetensors'}")


@app.command()
@handle_errors
def compare(
    data: Data,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="A criterion, again for each more.", show_default=False)
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Budgets of one kind: macs=0.75,0.5,0.25.", show_default=False),
    ] = None,
    ablation: Ablation = "mean",
    allocation: Annotated[str, typer.Option("--allocation", help="uniform, global, raw or loss.")] = "uniform",
    repair: Repair = "refit",
    only: Only = None,
    skip: Skip = None,
    kinds: Kinds = None,
    seed: Seed = 0,
) -> None:
    """See which criterion serves a network: rank, cut and repair by each, and judge on examples that none saw."""
    found = sc.compare(
        model_from(model, weights, program),
        batches_from(data),
        by or DEFAULT,
        parse_fractions(keep) if keep else None,
        test=batches_from(test) if test else None,
        ablation=ablation,
        allocation=allocation,
        repair=parse_repair(repair),
        only=only,
        skip=skip,
        kinds=kinds or None,
        seed=seed,
    )
    found.save(out)
    print(found)
    print(f"\nwritten to {out}: comparison.html and .json")


@app.command()
@handle_errors
def prune(
    data: Data,
    keep: KeepOption,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    program: Program = None,
    test: Test = None,
    by: By = "obs",
    ablation: Ablation = "mean",
    allocation: Annotated[str, typer.Option("--allocation", help="auto, uniform, global, raw or loss.")] = "auto",
    rounds: Annotated[int, typer.Option("--rounds", help="Score again on what a part is gone from.")] = 1,
    round_to: Annotated[
        int | None, typer.Option("--round-to", help="Numbers of units are multiples of this.", show_default=False)
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="Fill its kernels: auto, any, cpu, onnxruntime, cuda, avx512, avx2, arm.")
    ] = "auto",
    floor: Annotated[float, typer.Option("--floor", help="The fewest units of a group; below 1 a fraction.")] = 1,
    repair: Repair = "refit,adapt",
    only: Only = None,
    skip: Skip = None,
    kinds: Kinds = None,
    as_program: AsProgram = False,
    new_biases: NewBiases = True,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="About how long it may take; what is left out is said.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Prune a model, print the comparison, and write the small model and the report."""
    dense, batches = model_from(model, weights, program), batches_from(data)
    result = sc.prune(
        dense,
        batches,
        parse_keep_text(keep),
        by,
        test=batches_from(test) if test else None,
        ablation=ablation,
        allocation=allocation,
        rounds=rounds,
        round_to=round_to,
        target=target,
        floor=floor,
        repair=parse_repair(repair),
        only=only,
        skip=skip,
        kinds=kinds or None,
        as_program=as_program,
        new_biases=new_biases,
        seconds=seconds,
        seed=seed,
    )
    training.finish_cut(result, out)


@app.command()
@handle_errors
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that prune wrote.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print a saved report again."""
    print(saved_report(folder, json))


def _example(data: str | None) -> Any:
    if data is None:
        raise NameMatchError("--data is missing; give package.module:callable that gives batches, one is enough")
    return batches_from(data)


for command in (training.train, *sparsity.COMMANDS):
    app.command()(handle_errors(command))


def main() -> None:
    """The program's entry point."""
    app()
