"""The command that measures what is lost against what is saved: `secateur tradeoff`."""

from typing import Annotated

import typer

import secateur as sc
from secateur.cli.app import register_command
from secateur.cli.imports import batches_from, metric_from, model_from
from secateur.cli.options import (
    Ablation,
    By,
    Data,
    Kinds,
    MetricOption,
    Model,
    Only,
    Out,
    Repair,
    Seed,
    Skip,
    Test,
    Weights,
)
from secateur.cli.parsing import parse_bounds, parse_fractions, parse_repair


@register_command("tradeoff")
def tradeoff_command(
    data: Data,
    out: Out,
    model: Model = None,
    weights: Weights = None,
    test: Test = None,
    metric: MetricOption = None,
    by: By = "obs",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Budgets of one kind: macs=0.75,0.5,0.25.", show_default=False),
    ] = None,
    pick: Annotated[
        list[str] | None,
        typer.Option("--pick", help="Save the smallest network within a bound: accuracy=-0.01.", show_default=False),
    ] = None,
    ablation: Ablation = "mean",
    repair: Repair = "refit,adapt",
    only: Only = None,
    skip: Skip = None,
    kinds: Kinds = None,
    seed: Seed = 0,
) -> None:
    """Prune to several budgets from one scoring, and show what is lost against what is saved."""
    curve = sc.tradeoff(
        model_from(model, weights, None),
        batches_from(data),
        parse_fractions(keep) if keep else None,
        by,
        test=batches_from(test) if test else None,
        metric=metric_from(metric),
        ablation=ablation,
        repair=parse_repair(repair),
        only=only,
        skip=skip,
        kinds=kinds or None,
        seed=seed,
    )
    curve.save(out)
    print(curve)
    print(f"\nwritten to {out}: tradeoff.html, .json and .txt")
    if pick:
        curve.pick(**parse_bounds(pick)).save(out / "model")
        print(f"the picked network is written to {out / 'model'}")
