"""Budgets in the user's words: what is left, as fractions of the dense network, in absolute numbers, or as a speed."""

from collections.abc import Mapping, Sequence

from secateur.allocation.quantities import parse_quantity
from secateur.coupling.cost import Cost
from secateur.coupling.network import Kept, Network
from secateur.coupling.plan import Budget
from secateur.errors import BudgetError
from secateur.evaluation.latency_table import LatencyTable
from secateur.options import is_real

COUNTED = ("params", "macs", "bytes", "units")
LATENCY, SPEEDUP, MILLISECONDS = "latency", "speedup", "ms"
TIMES = (LATENCY, SPEEDUP, MILLISECONDS)
UNITS = (*COUNTED, *TIMES)
QUALITY_BOUNDS = ("loss", "accuracy")
MOST_PERCENT = 100


def parse_keep(keep: object) -> Budget:
    """Check a budget.

    Returns:
        The same with numbers in place of texts. Of what is counted, numbers up to 1 are fractions of the dense network,
        and those above are absolute.

    Raises:
        BudgetError: it isn't a dict, its unit is unknown, or its value is out of range.
    """
    if not isinstance(keep, Mapping) or not keep:
        raise BudgetError(f"keep={keep!r} is not a budget; give what is left with its unit, such as {{'macs': 0.5}}")
    for unit in keep:
        if unit not in (*UNITS, *QUALITY_BOUNDS):
            raise BudgetError(f"keep has the unknown unit {unit!r}; known are {', '.join((*UNITS, *QUALITY_BOUNDS))}")
    if len(set(keep) & set(TIMES)) > 1:
        raise BudgetError(f"keep={dict(keep)!r} says the time twice; give one of {', '.join(TIMES)}")
    return {str(unit): _parse_value(unit, value, len(keep)) for unit, value in keep.items()}


def _parse_value(unit: str, value: object, count: int) -> float:
    if unit in QUALITY_BOUNDS:
        _check_drop(unit, value, count)
        return float(value)  # type: ignore[arg-type]
    number = parse_quantity(unit, value)
    if unit == MILLISECONDS and number > 0:
        return number
    if unit == SPEEDUP and number >= 1:
        return number
    if unit in (*COUNTED, LATENCY) and 0 < number <= 1:
        return number
    is_percent = unit != "units" and number <= MOST_PERCENT
    if unit in COUNTED and number > 1 and number.is_integer() and not is_percent:
        return number
    raise BudgetError(f"keep={{{unit!r}: {value!r}}} is out of range; give {_RANGES.get(unit, _COUNTED_RANGE)}")


_COUNTED_RANGE = (
    "the fraction that stays, above 0 and at most 1, or an absolute number, a whole one above 100 such as '300M'"
)
_RANGES: Mapping[str, str] = {
    "units": "the fraction that stays, above 0 and at most 1, or how many units stay, a whole number above 1",
    LATENCY: "the fraction of the time that stays, above 0 and at most 1",
    SPEEDUP: "how many times as fast it is to be, 1 or more",
    MILLISECONDS: "milliseconds for a batch like the first one of the data, above 0",
}


def _check_drop(unit: str, value: object, count: int) -> None:
    sign = 1 if unit == "loss" else -1
    if count > 1 or not is_real(value) or not sign * float(value) > 0:  # type: ignore[arg-type]
        example = {"loss": 0.05} if unit == "loss" else {"accuracy": -0.01}
        raise BudgetError(
            f"keep={{{unit!r}: {value!r}}} is not a bound: give by how much it may change at most, alone, such as "
            f"{example}"
        )


def fractions_of(network: Network, keep: Budget) -> Budget:
    """A parsed budget with absolute numbers of what is counted as fractions of the dense network, 1 at most."""
    dense = network.cost()
    totals = {"params": dense.params, "macs": dense.macs, "bytes": dense.bytes, "units": network.units}
    return {
        unit: min(value / max(totals[unit], 1), 1.0) if unit in COUNTED and value > 1 else value
        for unit, value in keep.items()
    }


def latency_fraction(keep: Budget, dense_ms: float) -> float | None:
    """The time of a parsed budget as a fraction of the dense network's, None where it has none.

    Args:
        keep: the budget.
        dense_ms: milliseconds of the dense network for the batch.
    """
    if MILLISECONDS in keep:
        return min(keep[MILLISECONDS] / dense_ms, 1.0)
    if SPEEDUP in keep:
        return 1 / keep[SPEEDUP]
    return keep.get(LATENCY)


def with_latency(network: Network, keep: Budget, dense_ms: float) -> Budget:
    """A parsed budget in fractions alone, its time as "latency"."""
    left = latency_fraction(keep, dense_ms)
    counted = {unit: value for unit, value in fractions_of(network, keep).items() if unit not in TIMES}
    return counted if left is None else {**counted, LATENCY: left}


def fractions(
    network: Network, kept: Kept, cost: Cost, units: Sequence[str], latency: LatencyTable | None
) -> dict[str, float]:
    """What is left of the dense network, in each of these units.

    Raises:
        BudgetError: latency is among them, and there is no table of it.
    """
    if LATENCY in units and latency is None:
        raise BudgetError("a budget of latency needs a table of this machine's times: give latency=, or use prune()")
    gone = sum(network[name].size - len(indices) for name, indices in kept.items())
    time_left = 1.0 if latency is None or "latency" not in units else latency.left(network.mask(kept))
    left = {**counted_fractions(network, cost, gone), "latency": time_left}
    return {unit: left[unit] for unit in units}


def counted_fractions(network: Network, cost: Cost, gone: int) -> dict[str, float]:
    """What is left of the dense network, in each of the units that are counted.

    Args:
        network: the network.
        cost: of what is left.
        gone: how many units are not.
    """
    dense = network.cost()
    return {
        "params": cost.params / max(dense.params, 1),
        "macs": cost.macs / max(dense.macs, 1),
        "bytes": cost.bytes / max(dense.bytes, 1),
        "units": 1 - gone / max(network.units, 1),
    }
