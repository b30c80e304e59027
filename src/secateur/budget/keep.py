"""Budgets in the user's words: what is left, as fractions of the dense network."""

from collections.abc import Mapping, Sequence

from secateur.budget.latency import LatencyTable
from secateur.errors import BudgetError
from secateur.network.cost import Cost
from secateur.network.units import Kept, Network
from secateur.options import is_real

Keep = Mapping[str, float]
COUNTED = ("params", "macs", "bytes", "units")
UNITS = (*COUNTED, "latency")
DROPS = ("loss", "accuracy")


def parse_keep(keep: object) -> Keep:
    """Check a budget.

    Raises:
        BudgetError: it isn't a dict, its unit is unknown, or its value is not above 0 and at most 1.
    """
    if not isinstance(keep, Mapping) or not keep:
        raise BudgetError(f"keep={keep!r} is not a budget; give what is left with its unit, such as {{'macs': 0.5}}")
    for unit, value in keep.items():
        if unit not in (*UNITS, *DROPS):
            raise BudgetError(f"keep has the unknown unit {unit!r}; known are {', '.join((*UNITS, *DROPS))}")
        if unit in DROPS:
            _check_drop(unit, value, len(keep))
            continue
        if not _is_fraction(value):
            raise BudgetError(
                f"keep={{{unit!r}: {value!r}}} is out of range; give the fraction that stays, above 0 and at most 1"
            )
    return {str(unit): float(value) for unit, value in keep.items()}


def _check_drop(unit: str, value: object, count: int) -> None:
    sign = 1 if unit == "loss" else -1
    if count > 1 or not is_real(value) or not sign * float(value) > 0:  # type: ignore[arg-type]
        example = {"loss": 0.05} if unit == "loss" else {"accuracy": -0.01}
        raise BudgetError(
            f"keep={{{unit!r}: {value!r}}} is not a bound: give by how much it may change at most, alone, such as "
            f"{example}"
        )


def _is_fraction(value: object) -> bool:
    return is_real(value) and 0 < float(value) <= 1  # type: ignore[arg-type]


def fractions(
    network: Network, kept: Kept, cost: Cost, units: Sequence[str], latency: LatencyTable | None
) -> dict[str, float]:
    """What is left of the dense network, in each of these units.

    Raises:
        BudgetError: latency is among them, and there is no table of it.
    """
    if "latency" in units and latency is None:
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
