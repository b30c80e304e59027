"""Parse the texts of options."""

import functools
import operator
from typing import TYPE_CHECKING

from secateur.allocation.quantities import parse_quantity
from secateur.errors import BudgetError
from secateur.options import check_name

if TYPE_CHECKING:
    from secateur.stopping import Rule


def parse_keep_text(entries: list[str]) -> dict[str, float]:
    """Parse entries such as `macs=0.5`, `params=2M` or `latency=50%` to a budget.

    Raises:
        BudgetError: an entry has another form.
    """
    budget: dict[str, float] = {}
    for entry in entries:
        unit, _, value = (text.strip() for text in entry.partition("="))
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
    """Parse entries such as `conv2=0.6` to ratios by layer."""
    return _parse_numbers(entries, "--ratio", "LAYER=FRACTION, such as conv2=0.6")


def parse_sizes(entries: list[str]) -> dict[str, float]:
    """Parse entries such as `layer1.*=0.5`, `fc1=24` or `fc1=50%` to what groups keep.

    Raises:
        BudgetError: an entry has another form.
    """
    sizes: dict[str, float] = {}
    for entry in entries:
        name, _, text = (piece.strip() for piece in entry.rpartition("="))
        try:
            sizes[name] = int(text) if text.isdecimal() else parse_quantity("units", text)
        except BudgetError as failure:
            raise BudgetError(f"--size {entry} is not of the form {SIZE_FORM}") from failure
        if not name:
            raise BudgetError(f"--size {entry} is not of the form {SIZE_FORM}")
    return sizes


BOUNDED = ("accuracy", "agreement", "loss", "metric", "macs", "params", "bytes", "latency")
SIZE_FORM = "GROUP=NUMBER or GROUP=FRACTION, such as layer1.0.conv1=24 or layer1.*=0.5"


def parse_bounds(entries: list[str]) -> dict[str, float]:
    """Parse entries such as `accuracy=-0.01` to bounds by measure, of the measures and sizes that a curve may have.

    Raises:
        BudgetError: an entry has another form.
        NameMatchError: there is no such measure.
    """
    bounds = _parse_numbers(entries, "--pick", "MEASURE=BOUND, such as accuracy=-0.01")
    for name in bounds:
        check_name(name, BOUNDED, "--pick bounds no")
    return bounds


def _parse_numbers(entries: list[str], option: str, form: str) -> dict[str, float]:
    """Parse entries of the form NAME=NUMBER.

    Raises:
        BudgetError: an entry has another form.
    """
    numbers = {}
    for entry in entries:
        name, _, value = entry.rpartition("=")
        try:
            numbers[name] = float(value)
        except ValueError as failure:
            raise BudgetError(f"{option} {entry} is not of the form {form}") from failure
    return numbers


def parse_fractions(entries: list[str]) -> dict[str, tuple[float, ...]]:
    """Parse entries such as `macs=0.5,0.25` to the budgets of a comparison."""
    fractions: dict[str, tuple[float, ...]] = {}
    for entry in entries:
        unit, _, values = entry.partition("=")
        for value in values.split(","):
            fractions[unit] = (*fractions.get(unit, ()), *parse_keep_text([f"{unit}={value}"]).values())
    return fractions


def parse_shape(shape: str) -> tuple[int, int]:
    """Parse a text such as `4x8` to a pair.

    Raises:
        BudgetError: the text has another form.
    """
    rows, _, columns = shape.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise BudgetError(f"--shape {shape} is not of the form ROWSxCOLUMNS, such as 4x8")
    return int(rows), int(columns)


def parse_block_shape(shape: str) -> int | tuple[int, ...]:
    """Parse `4x8` or `4x4x1x1` to the sides of a block, and `8` to a number of weights.

    Raises:
        BudgetError: the text has another form.
    """
    sides = shape.lower().split("x")
    if not all(side.isdecimal() for side in sides):
        raise BudgetError(f"--shape {shape} is not of the form 1x8, 4x4x1x1 or 8")
    return int(sides[0]) if len(sides) == 1 else tuple(map(int, sides))


def parse_block_shapes(entries: list[str]) -> int | tuple[int, ...] | dict[str, int | tuple[int, ...]]:
    """Parse one shape for all layers, or several of the form `conv*=4x4x1x1`.

    Raises:
        BudgetError: an entry has another form.
    """
    if len(entries) == 1 and "=" not in entries[0]:
        return parse_block_shape(entries[0])
    shapes = {}
    for entry in entries:
        glob, equals, shape = entry.rpartition("=")
        shapes[glob if equals else "*"] = parse_block_shape(shape)
    return shapes


def parse_allocation(allocation: str) -> str | list[str]:
    """Parse the name of an allocation, or several that are separated by commas."""
    return _names_in(allocation) if "," in allocation else allocation


def parse_repair(repair: str) -> list[str] | None:
    """Parse repairs that are separated by commas; "none" gives None."""
    return None if repair == "none" else _names_in(repair)


def _names_in(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def stopping_rule(coalitions: int | None, error: float | None, seconds: float | None) -> "Rule | None":
    """Combine the limits of an estimate: the one that is reached first ends it."""
    from secateur.stopping import Coalitions, Seconds, StandardError

    rules: list[Rule] = []
    rules += [] if coalitions is None else [Coalitions(coalitions)]
    rules += [] if error is None else [StandardError(error)]
    rules += [] if seconds is None else [Seconds(seconds)]
    return functools.reduce(operator.or_, rules) if rules else None
