"""Checks of a metric of the user's own: on a few examples before any work is done, and of its final values."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.metrics import Metric, MetricMeter, MetricValues, call_metric, metric_name, metric_target
from secateur.utils.collected_warnings import warn

Outputs = Iterable[tuple[Batch, Any]]
NO_VALUE = "let it return a number where it can be computed; NaN is for single examples that do not count"


def check_metric(metric: Metric, examples: Sequence[tuple[Batch, Any]], others: Outputs, is_bounded: bool) -> None:
    """Check a metric on a few examples of each kind of batch, and on more where it has no value for these.

    Args:
        metric: the function.
        examples: some examples and the dense network's output for them.
        others: all examples and the outputs for them, which are run up to the first batch with a value.
        is_bounded: whether the budget is a bound on the metric.

    Raises:
        DataError: it fails, gives something else than numbers, has no value for any example, or is infinite where it
            is bounded.
    """
    distinct = {id(output): (batch, output) for batch, output in examples}.values()
    values = [_usable_value(metric, batch, output) for batch, output in distinct]
    if is_bounded and any(bool(value.isinf().any()) for value in values):
        raise DataError(
            f"metric={metric_name(metric)} is infinite for the dense network, so that its change has no bound; without "
            "targets the outputs of the dense network stand in their place: give targets, or a metric that is finite"
        )
    if all(bool(value.isnan().all()) for value in values):
        _check_any_value(metric, others)


def _usable_value(metric: Metric, batch: Batch, output: Any) -> Tensor:
    """Return the metric of a few examples, one number or (examples,).

    Raises:
        DataError: it fails, or gives something else than numbers.
    """
    value = call_metric(metric, pytree.tree_map(_detached_leaf, output), metric_target(batch, output))
    if value.numel() != 1 and value.shape != (batch.size,):
        raise DataError(
            f"metric={metric_name(metric)} gave {tuple(value.shape)} for {batch.size} examples; let it return one "
            "number, or one value per example"
        )
    return value


def _check_any_value(metric: Metric, outputs: Outputs) -> None:
    """Check that a metric has a value for some batch, or else for all examples together.

    Raises:
        DataError: it has none.
    """
    meter, count = MetricMeter(metric), 0
    for batch, output in outputs:
        detached_output = pytree.tree_map(_detached_leaf, output)
        if not bool(_usable_value(metric, batch, detached_output).isnan().all()):
            return
        meter.add(batch, (detached_output,), detached_output)
        count += batch.size or 1
    if math.isnan(meter.results()[0].value):
        raise DataError(
            f"metric={metric_name(metric)} is NaN for all {count} examples with the dense network's outputs; {NO_VALUE}"
        )


def check_dense_value(metric: Metric, values: MetricValues, role: str) -> None:
    """Check that the metric of the dense network has a value on examples to judge by.

    Args:
        metric: the function.
        values: the metric of the dense network.
        role: what the examples are, in words.

    Raises:
        DataError: it has none.
    """
    if math.isnan(values.value):
        raise DataError(
            f"metric={metric_name(metric)} is NaN for all {role} with the dense network's outputs; give more examples "
            "for which it has a value"
        )


def warn_without_value(metric: Metric, dense: MetricValues, small: MetricValues) -> None:
    """Warn if the metric of one of both networks has no value."""
    for network, values in (("dense", dense), ("small", small)):
        if math.isnan(values.value):
            warn(
                f"metric={metric_name(metric)} is NaN for all examples of the report with the {network} network's "
                f"outputs; {NO_VALUE}"
            )
            return


def _detached_leaf(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
