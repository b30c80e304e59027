"""Fractions of the dense network: of budgets, and of what a plan keeps."""

from collections.abc import Sequence

from secateur.allocation.budget import COUNTED, LATENCY, MILLISECONDS, SPEEDUP, TIMES, UNIT_COUNT, timed_phase
from secateur.coupling.cost import Cost
from secateur.coupling.network import Kept, Network
from secateur.coupling.plan import Budget
from secateur.coupling.residual_blocks import blocks_of, groups_inside, removed_blocks
from secateur.errors import BudgetError
from secateur.evaluation.latency_table import LatencyTable


def fractions_of(network: Network, keep: Budget) -> Budget:
    """Return a parsed budget with absolute numbers of what is counted as fractions of the dense network, 1 at most."""
    dense = network.cost()
    totals = {"params": dense.params, "macs": dense.macs, "bytes": dense.bytes, "units": network.units}
    return {
        unit: min(value / max(totals[unit], 1), 1.0) if unit in COUNTED and value > 1 else value
        for unit, value in keep.items()
    }


def latency_fraction(keep: Budget, dense_ms: float) -> float | None:
    """Return the time of a parsed budget as a fraction of the dense network's, None if it has none.

    Args:
        keep: the budget.
        dense_ms: milliseconds of the dense network for the batch.
    """
    if MILLISECONDS in keep:
        return min(keep[MILLISECONDS] / dense_ms, 1.0)
    if SPEEDUP in keep:
        return 1 / keep[SPEEDUP]
    return keep.get(timed_phase(keep) or LATENCY)


def with_latency(network: Network, keep: Budget, dense_ms: float) -> Budget:
    """Return a parsed budget in fractions alone, its time as "latency"."""
    fraction = latency_fraction(keep, dense_ms)
    counted_budget = {unit: value for unit, value in fractions_of(network, keep).items() if unit not in TIMES}
    return counted_budget if fraction is None else {**counted_budget, LATENCY: fraction}


def fractions(
    network: Network, kept: Kept, cost: Cost, units: Sequence[str], latency: LatencyTable | None
) -> dict[str, float]:
    """Return the fraction of the dense network that is kept, in each of these units.

    Args:
        network: the network.
        kept: the units that are kept, by group.
        cost: of these units.
        units: of the budget.
        latency: the times of this machine, for "latency".

    Raises:
        BudgetError: latency is among the units, and there is no table of times.
    """
    if LATENCY in units and latency is None:
        raise BudgetError(NEEDS_TIMES)
    removal_count = removed_units(network, kept) if UNIT_COUNT in units else 0
    time = 1.0 if latency is None or LATENCY not in units else latency.fraction(network.mask(kept))
    remaining = {**counted_fractions(network, cost, removal_count), LATENCY: time}
    return {unit: remaining[unit] for unit in units}


def removed_units(network: Network, kept: Kept) -> int:
    """Return how many units are removed, those inside of removed blocks among them.

    Args:
        network: the network.
        kept: the units that are kept, by group.
    """
    groups_in_blocks = groups_inside(network, removed_blocks(network, network.mask(kept))) if blocks_of(network) else []
    names = {group.name for group in groups_in_blocks}
    removal_counts = (network[name].size - len(indices) for name, indices in kept.items() if name not in names)
    return sum(removal_counts) + sum(group.size for group in groups_in_blocks)


def counted_fractions(network: Network, cost: Cost, removal_count: int) -> dict[str, float]:
    """Return the fraction of the dense network that is kept, in each of the units that are counted.

    Args:
        network: the network.
        cost: of the units that are kept.
        removal_count: how many units are removed.
    """
    dense = network.cost()
    return {
        "params": cost.params / max(dense.params, 1),
        "macs": cost.macs / max(dense.macs, 1),
        "bytes": cost.bytes / max(dense.bytes, 1),
        "units": 1 - removal_count / max(network.units, 1),
    }


NEEDS_TIMES = (
    "a budget in time needs this machine's times: give data=, by which they are measured, or a table, latency="
)
