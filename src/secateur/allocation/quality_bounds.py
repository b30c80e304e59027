"""The smallest network within a bound on the quality: plans of several sizes are tried on examples held out."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from secateur.allocation.block_search import best_plan
from secateur.allocation.budget import METRIC
from secateur.allocation.config import DEFAULTS, PruneConfig
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.metric_change import MetricChange
from secateur.coupling.plan import Plan
from secateur.errors import BudgetError
from secateur.evaluation.changes import Change
from secateur.evaluation.channel_steps import ANY
from secateur.evaluation.class_hits import class_hits, top_classes
from secateur.evaluation.losses import Loss
from secateur.evaluation.metric_checks import check_dense_value
from secateur.evaluation.metrics import Metric, MetricMeter, metric_change
from secateur.evaluation.output_pairs import OutputPair
from secateur.evaluation.targets import IGNORED
from secateur.utils.collected_warnings import warn
from secateur.utils.progress import track

STEPS = 7
LEAST = 0.02


def smallest_plan_within(search: PlanSearch, unit: str, limit: float) -> Plan:
    """Return the smallest plan, in MACs, whose change on the examples held out is within a bound.

    Args:
        search: makes the plans.
        unit: "loss", "accuracy" or "metric".
        limit: the most it may change by.

    Raises:
        BudgetError: even the largest plan tried changes it by more.
    """
    allocation = best_plan(search, {"macs": _reachable_macs(search, 0.5, Allocation(("uniform",)))}).allocation
    plan, change = _bisect_plan(search, allocation, unit, limit)
    if not change.within and allocation.target != ANY:  # the largest sizes that fill kernels may lose too much
        plan, change = _bisect_plan(search, allocation._replace(target=ANY), unit, limit)
    if not change.within:
        kept = plan.cost.macs / plan.dense.macs
        raise BudgetError(
            f"keep={{{unit!r}: {limit:g}}} can't be met: with {kept:.0%} of the MACs it changes by {change.mean:+z.4f} "
            f"on {change.examples} examples; allow more, or give more examples"
        )
    _warn_if_contrary(change)
    return plan


def _bisect_plan(search: PlanSearch, allocation: Allocation, unit: str, limit: float) -> tuple[Plan, MetricChange]:
    """Return the smallest plan within a bound by one allocation, or the largest plan tried, and how much it changes."""
    low, high = _reachable_macs(search, LEAST, allocation), 1.0
    smallest = largest = None
    for _ in track(range(STEPS), "plans within the bound"):
        middle = math.sqrt(low * high)
        plan = search.plan({"macs": middle}, allocation)
        change = measure_change(search.simulator, plan, unit, limit, search.config)
        if change.within:
            smallest, high = (replace(plan, change=change), change), middle
        else:
            largest, low = (plan, change), middle
    best = smallest or largest
    assert best is not None
    return best


def _warn_if_contrary(change: MetricChange) -> None:
    """Warn if a metric changes by more than its bound in the other direction: the bound's sign may be the wrong one."""
    if change.unit == METRIC and change.mean * change.asked < 0 and abs(change.mean) > abs(change.asked):
        falls, better_values = ("falls", "larger") if change.mean < 0 else ("rises", "smaller")
        warn(
            f"the metric {falls} by {abs(change.mean):.4g}, and keep={{'metric': {change.asked:g}}} bounds the other "
            f"direction alone; if {better_values} values are better, give {{'metric': {-change.asked:g}}}"
        )


def _reachable_macs(search: PlanSearch, macs: float, allocation: Allocation) -> float:
    """Return this fraction of the MACs, or the least that can be reached by an allocation."""
    low, high = macs, 1.0
    for _ in range(12):
        try:
            search.plan({"macs": low}, allocation)
            return low
        except BudgetError:
            low = low + (high - low) / 4
    return high


def measure_change(
    simulator: PlanSimulator, plan: Plan, unit: str, limit: float, config: PruneConfig = DEFAULTS
) -> MetricChange:
    """Measure the change of the loss, the accuracy or the metric on the examples held out.

    Args:
        simulator: runs the plan.
        plan: the plan.
        unit: "loss", "accuracy" or "metric".
        limit: the most it may change by.
        config: the user's own loss and metric.
    """
    numbers = simulator.recall(unit, plan.kept, None, partial(_change_numbers, simulator, plan, unit, config))
    mean, half_width, count = numbers.tolist()
    return MetricChange(unit, limit, mean, mean - half_width, mean + half_width, int(count))


def _change_numbers(simulator: PlanSimulator, plan: Plan, unit: str, config: PruneConfig) -> Tensor:
    """Return the mean change, half the width of its interval, and the number of examples, (3,)."""
    pairs = simulator.outputs(plan.kept)
    if unit == METRIC:
        change, count = _metric_change(pairs, config.metric)
    else:
        differences = torch.cat([CHANGES[unit](pair, config.loss) for pair in pairs])
        differences = differences[~differences.isnan()]  # examples without a label that counts
        change, count = Change.of(differences) or Change(math.nan, math.nan), len(differences)
    return torch.tensor([change.mean, change.half_width, count], dtype=torch.float64)


def _metric_change(pairs: Iterable[OutputPair], metric: Metric | None) -> tuple[Change, int]:
    """Return the change of the user's metric, and the number of examples.

    Raises:
        DataError: the metric of the dense network has no value.
    """
    assert metric is not None
    meter, count = MetricMeter(metric), 0
    for pair in pairs:
        meter.add(pair.batch, (pair.dense, pair.small), pair.dense)
        count += pair.examples
    dense, small = meter.results()
    check_dense_value(metric, dense, f"{count} examples held out to judge plans by")
    return metric_change(dense, small), count


def _loss_changes(pair: OutputPair, loss: Loss | None) -> Tensor:
    """Return the increase of each example's loss, against the label or the dense network's output, (examples,)."""
    return pair.losses(pair.small, loss) - pair.losses(pair.dense, loss)


def _accuracy_changes(pair: OutputPair, loss: Loss | None) -> Tensor:
    """Return the increase of each example's accuracy; without labels, of the agreement, (examples,).

    Raises:
        BudgetError: outputs or labels are not classes.
    """
    outputs = [pair.comparable(output) for output in (pair.dense, pair.small)]
    labels = top_classes(outputs[0]) if pair.batch.target is None else pair.batch.target
    before, after = (class_hits(output, labels, pair.examples) for output in outputs)
    is_ignored = isinstance(labels, Tensor) and bool((labels == IGNORED).all())
    if bool(before.isnan().all()) and not is_ignored:
        raise BudgetError("a bound on the accuracy needs outputs and labels that are classes; give {'loss': ...}")
    return after - before


CHANGES: Mapping[str, Callable[[OutputPair, Loss | None], Tensor]] = {
    "loss": _loss_changes,
    "accuracy": _accuracy_changes,
}
