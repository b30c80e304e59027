"""What the commands are told, what their words mean, and how they end."""

import functools
import operator
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.allocation.quantities import parse_quantity
from secateur.errors import BudgetError, SecateurError
from secateur.stopping import Coalitions, Rule, Seconds, StandardError

Model = Annotated[
    str | None, typer.Option("--model", help="package.module:callable that makes the dense model.", show_default=False)
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
Ablation = Annotated[
    str,
    typer.Option(
        "--ablation",
        "--removal",
        help="What takes the place of an absent unit: mean, zero, or impute, a prediction from the others.",
    ),
]
KeepOption = Annotated[
    list[str],
    typer.Option(
        "--keep",
        help="What is left: macs=0.5 or 300M, params=, bytes=, units=, latency=0.5, speedup=2, ms=5.",
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
    typer.Option("--new-biases/--no-new-biases", help="Layers without a bias may get one for removed units' means."),
]
Test = Annotated[str | None, typer.Option("--test", help="Other examples to measure on.", show_default=False)]
Repair = Annotated[
    str, typer.Option("--repair", help="mean, batchnorm, refit, adapt, tune, several with commas, or none.")
]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to.", show_default=False)]


Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, mps.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM was sent: what Ctrl-C saves and cleans up is saved and cleaned up."""


@contextmanager
def terminated_cleanly() -> Iterator[None]:
    """SIGTERM is as good as Ctrl-C in the main thread."""

    def stop(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def handle_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of ours as one message on standard error and exit code 2; Ctrl-C as 130, SIGTERM as 143."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with terminated_cleanly():
                command(*args, **kwargs)
        except SecateurError as error:
            print(f"secateur: {error}", file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            print("secateur: stopped; nothing was written but the checkpoint, if there is one", file=sys.stderr)
            raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from stop

    return run


def parse_keep_text(entries: list[str]) -> dict[str, float]:
    """`macs=0.5`, `params=2M`, `latency=50%` and the like as a budget.

    Raises:
        BudgetError: an entry is of another form.
    """
    budget: dict[str, float] = {}
    for entry in entries:
        unit, _, value = (part.strip() for part in entry.partition("="))
        if not unit or not value:
            raise BudgetError(f"--keep {entry} is not of the form unit=number, such as macs=0.5 or params=2M")
        if unit in budget:
            raise BudgetError(f"--keep gives {unit} twice")
        try:
            budget[unit] = float(value)
        except ValueError:
            budget[unit] = parse_quantity(unit, value)
    return budget


def parse_ratios(entries: list[str]) -> dict[str, float]:
    """`conv2=0.6` and the like as ratios by layer.

    Raises:
        BudgetError: an entry is of another form.
    """
    ratios = {}
    for entry in entries:
        glob, _, value = entry.rpartition("=")
        try:
            ratios[glob] = float(value)
        except ValueError as failure:
            raise BudgetError(f"--ratio {entry} is not of the form LAYER=FRACTION, such as conv2=0.6") from failure
    return ratios


def parse_fractions(entries: list[str]) -> dict[str, tuple[float, ...]]:
    """`macs=0.5,0.25` and the like as budgets to try."""
    found: dict[str, tuple[float, ...]] = {}
    for entry in entries:
        unit, _, values = entry.partition("=")
        for value in values.split(","):
            found[unit] = (*found.get(unit, ()), *parse_keep_text([f"{unit}={value}"]).values())
    return found


def parse_shape(shape: str) -> tuple[int, int]:
    """`4x8` as a pair.

    Raises:
        BudgetError: it is of another form.
    """
    high, _, wide = shape.lower().partition("x")
    if not (high.isdecimal() and wide.isdecimal()):
        raise BudgetError(f"--shape {shape} is not of the form ROWSxCOLUMNS, such as 4x8")
    return int(high), int(wide)


def parse_block_shape(shape: str) -> int | tuple[int, ...]:
    """`4x8` or `4x4x1x1` as sides, `8` as a number of weights.

    Raises:
        BudgetError: it is of another form.
    """
    sides = shape.lower().split("x")
    if not all(side.isdecimal() for side in sides):
        raise BudgetError(f"--shape {shape} is not of the form 1x8, 4x4x1x1 or 8")
    return int(sides[0]) if len(sides) == 1 else tuple(map(int, sides))


def parse_block_shapes(entries: list[str]) -> int | tuple[int, ...] | dict[str, int | tuple[int, ...]]:
    """One shape for all, or several of the form `conv*=4x4x1x1`.

    Raises:
        BudgetError: an entry is of another form.
    """
    if len(entries) == 1 and "=" not in entries[0]:
        return parse_block_shape(entries[0])
    shapes = {}
    for entry in entries:
        glob, equals, shape = entry.rpartition("=")
        shapes[glob if equals else "*"] = parse_block_shape(shape)
    return shapes


def parse_repair(repair: str) -> list[str] | None:
    """Repairs with commas between them, or none."""
    return None if repair == "none" else repair.split(",")


def stopping_rule(coalitions: int | None, error: float | None, seconds: float | None) -> Rule | None:
    """Whichever is reached first."""
    given: list[Rule] = []
    given += [] if coalitions is None else [Coalitions(coalitions)]
    given += [] if error is None else [StandardError(error)]
    given += [] if seconds is None else [Seconds(seconds)]
    return functools.reduce(operator.or_, given) if given else None
