"""Budgets in the user's words: fractions of the dense network, absolute numbers, times, or bounds on the quality."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from secateur.allocation.quantities import parse_quantity
from secateur.coupling.plan import Budget
from secateur.errors import BudgetError
from secateur.evaluation.generation import DECODE, PHASES, PREFILL
from secateur.options import is_real
from secateur.options.foreign import foreign_option
from secateur.options.foreign_names import FOREIGN_UNITS, REMOVED_FRACTIONS, familiar_name

UNIT_COUNT = "units"
COUNTED = ("params", "macs", "bytes", UNIT_COUNT)
LATENCY, SPEEDUP, MILLISECONDS = "latency", "speedup", "ms"
TIMES = (LATENCY, SPEEDUP, MILLISECONDS, *PHASES)
UNITS = (*COUNTED, *TIMES)
METRIC = "metric"
QUALITY_BOUNDS = ("loss", "accuracy", METRIC)
MOST_PERCENT = 100


def parse_keep(keep: object) -> Budget:
    """Check a budget.

    Returns:
        The budget with numbers in place of texts. Of what is counted, numbers up to 1 are fractions of the dense
        network, and larger ones are absolute.

    Raises:
        BudgetError: it isn't a dict, its unit is unknown, or its value is out of range.
    """
    if not isinstance(keep, Mapping) or not keep:
        is_percent = isinstance(keep, str) and keep.endswith("%")
        value = keep if is_percent or (is_real(keep) and 0 < float(keep) < 1) else 0.5  # type: ignore[arg-type]
        raise BudgetError(
            f"keep={keep!r} is not a budget; give a dict from a unit to what is kept, such as {{'macs': {value!r}}}"
        )
    for unit, value in keep.items():
        _check_unit(unit, value)
    if len(set(keep) & set(TIMES)) > 1:
        raise BudgetError(f"keep={dict(keep)!r} gives the time twice; give one of {', '.join(TIMES)}")
    return {str(unit): _parse_value(unit, value, len(keep)) for unit, value in keep.items()}


def _check_unit(unit: object, value: object) -> None:
    """Check the unit of a budget.

    Raises:
        BudgetError: it is unknown; the unit that a name of other libraries stands for is offered.
    """
    if unit in (*UNITS, *QUALITY_BOUNDS):
        return
    foreign = foreign_option(unit, ["keep"]) if isinstance(unit, str) and unit in REMOVED_FRACTIONS.split() else None
    if foreign is not None:
        raise BudgetError(f"keep has the unknown unit {unit!r}; {foreign.in_python(str(unit), value)}")
    by_small_letters = {name.lower(): name for name in (*UNITS, *QUALITY_BOUNDS)}
    familiar = familiar_name(unit, {**FOREIGN_UNITS, **by_small_letters})
    hint = "" if familiar is None else f"did you mean {familiar!r}? "
    raise BudgetError(
        f"keep has the unknown unit {unit!r}; {hint}known are {', '.join((*UNITS, *QUALITY_BOUNDS))}; what single "
        "layers keep is given by sizes=, such as sizes={'layer1.*': 0.5}"
    )


def parse_budget(keep: object, sizes: Mapping[Any, Any] | None) -> Budget:
    """Check a budget, which may be left out where sizes of groups are given.

    Raises:
        BudgetError: as `parse_keep` raises.
    """
    if keep is None and sizes:
        return {}
    return parse_keep(keep)


def parse_budgets(keep: Mapping[str, float | Sequence[float]]) -> list[Budget]:
    """Check budgets of several fractions, and return one budget for each.

    Args:
        keep: fractions by unit.

    Raises:
        BudgetError: there is none, or one that is not counted.
    """
    pairs = (
        [(unit, value) for unit, values in keep.items() for value in _as_sequence(values)]
        if isinstance(keep, Mapping)
        else []
    )
    if not pairs or any(unit not in COUNTED for unit, _ in pairs):
        raise BudgetError(f"keep={keep!r}: give fractions of {', '.join(COUNTED)}, such as {{'macs': (0.5, 0.25)}}")
    return [parse_keep({unit: value}) for unit, value in pairs]


def _as_sequence(values: Any) -> Sequence[Any]:
    return values if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def quality_bound(keep: Budget) -> str | None:
    """Return "loss", "accuracy" or "metric" if a budget is a bound on it, else None."""
    return next((unit for unit in QUALITY_BOUNDS if unit in keep), None)


def check_metric_bound(keep: Budget, metric: object) -> None:
    """Check that there is a metric where the budget is a bound on it, and that the bound's sign is that of a loss.

    Raises:
        BudgetError: there is none; or the bound limits how much the metric may gain, by its `higher_is_better`.
    """
    if METRIC not in keep:
        return
    is_higher_better, bound = getattr(metric, "higher_is_better", None), keep[METRIC]
    if is_higher_better is not None and bool(is_higher_better) == (bound > 0):
        direction, allowed = ("larger", "decrease") if is_higher_better else ("smaller", "increase")
        raise BudgetError(
            f"keep={dict(keep)} would allow any loss: {direction} values of this metric are better by its attribute "
            f"higher_is_better; give {{'metric': {-bound:g}}}, the largest {allowed}"
        )
    if metric is None:
        raise BudgetError(
            f"keep={dict(keep)} is a bound on the metric: give metric=, a function of outputs and targets; a negative "
            "bound is the largest decrease that is allowed, a positive one the largest increase"
        )


def has_time(keep: Budget) -> bool:
    """Return whether a budget is in time, among others."""
    return bool(set(keep) & set(TIMES))


def timed_phase(keep: Budget) -> str | None:
    """Return "decode_latency" or "prefill_latency" if a budget is in the time of text generation, else None."""
    return next((unit for unit in PHASES if unit in keep), None)


def _parse_value(unit: str, value: object, count: int) -> float:
    if unit in QUALITY_BOUNDS:
        _check_quality_bound(unit, value, count)
        return float(value)  # type: ignore[arg-type]
    number = parse_quantity(unit, value)
    if unit == MILLISECONDS and number > 0:
        return number
    if unit == SPEEDUP and number >= 1:
        return number
    if unit in (*COUNTED, LATENCY, *PHASES) and 0 < number <= 1:
        return number
    is_percent = unit != "units" and number <= MOST_PERCENT
    if unit in COUNTED and number > 1 and number.is_integer() and not is_percent:
        return number
    raise BudgetError(f"keep={{{unit!r}: {value!r}}} is out of range; give {_RANGES.get(unit, _COUNTED_RANGE)}")


_COUNTED_RANGE = (
    "the fraction that is kept, above 0 and at most 1, or an absolute number, a whole one above 100 such as '300M'"
)
_RANGES: Mapping[str, str] = {
    "units": "the fraction that is kept, above 0 and at most 1, or the number of units, a whole number above 1",
    LATENCY: "the fraction of the dense network's time, above 0 and at most 1",
    DECODE: "the fraction of the dense network's time for one token, above 0 and at most 1",
    PREFILL: "the fraction of the dense network's time for a prompt, above 0 and at most 1",
    SPEEDUP: "how many times as fast the network is to be, 1 or more",
    MILLISECONDS: "milliseconds for a batch like the first one of the data, above 0",
}


def _check_quality_bound(unit: str, value: object, count: int) -> None:
    number = float(value) if is_real(value) else 0.0  # type: ignore[arg-type]
    is_in_range = {"loss": number > 0, "accuracy": number < 0, METRIC: number != 0}[unit]
    if count > 1 or not is_in_range or not math.isfinite(number):
        example = {unit: 0.05 if unit == "loss" else -0.01}
        raise BudgetError(
            f"keep={{{unit!r}: {value!r}}} is not a bound: give the largest change that is allowed, alone, such as "
            f"{example}"
        )
