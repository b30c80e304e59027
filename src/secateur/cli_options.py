"""What the commands are told, and what their words mean."""

import functools
import operator
from pathlib import Path
from typing import Annotated

import typer

from secateur.errors import BudgetError
from secateur.stopping import Coalitions, Error, Rule, Seconds

Model = Annotated[
    str | None, typer.Option("--model", help="package.module:callable that makes the dense model.", show_default=False)
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Its weights: .safetensors, or .pt/.pth of tensors.", show_default=False),
]
Program = Annotated[
    Path | None, typer.Option("--program", help="A .pt2 exported program in place of a model.", show_default=False)
]
Data = Annotated[
    str, typer.Option("--data", help="package.module:callable that gives batches of examples.", show_default=False)
]
MaybeData = Annotated[
    str | None,
    typer.Option("--data", help="package.module:callable that gives batches of examples.", show_default=False),
]
Only = Annotated[list[str] | None, typer.Option("--only", help="Only groups that match this glob.", show_default=False)]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="No groups that match this glob.", show_default=False)]
By = Annotated[str, typer.Option("--by", help="The criterion.")]
Seed = Annotated[int, typer.Option("--seed", help="All randomness is drawn from it.")]
Removal = Annotated[str, typer.Option("--removal", help="What stands in for an absent unit: mean or zero.")]
Keep = Annotated[
    list[str], typer.Option("--keep", help="What is left: macs=0.5, params=, bytes= or units=.", show_default=False)
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Only units of this kind: channels, neurons, residual, heads, or blocks."),
]
AsProgram = Annotated[bool, typer.Option("--as-program", help="Cut the exported program in place of the model's code.")]
Test = Annotated[str | None, typer.Option("--test", help="Other examples to measure on.", show_default=False)]
Repair = Annotated[str, typer.Option("--repair", help="mean, batchnorm, refit, tune, several with commas, or none.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to.", show_default=False)]


def parse_keep(entries: list[str]) -> dict[str, float]:
    """`macs=0.5` and the like as a budget.

    Raises:
        BudgetError: an entry is of another form.
    """
    budget: dict[str, float] = {}
    for entry in entries:
        unit, _, value = entry.partition("=")
        try:
            fraction = float(value)
        except ValueError as failure:
            raise BudgetError(f"--keep {entry} is not of the form unit=fraction, such as macs=0.5") from failure
        if unit.strip() in budget:
            raise BudgetError(f"--keep gives {unit.strip()} twice")
        budget[unit.strip()] = fraction
    return budget


def parse_fractions(entries: list[str]) -> dict[str, tuple[float, ...]]:
    """`macs=0.5,0.25` and the like as budgets to try."""
    found: dict[str, tuple[float, ...]] = {}
    for entry in entries:
        unit, _, values = entry.partition("=")
        for value in values.split(","):
            found[unit] = (*found.get(unit, ()), *parse_keep([f"{unit}={value}"]).values())
    return found


def parse_repair(repair: str) -> list[str] | None:
    """Repairs with commas between them, or none."""
    return None if repair == "none" else repair.split(",")


def stopping_rule(coalitions: int | None, error: float | None, seconds: float | None) -> Rule | None:
    """Whichever is reached first."""
    given: list[Rule] = []
    given += [] if coalitions is None else [Coalitions(coalitions)]
    given += [] if error is None else [Error(error)]
    given += [] if seconds is None else [Seconds(seconds)]
    return functools.reduce(operator.or_, given) if given else None
