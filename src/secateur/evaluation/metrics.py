"""Metrics of the user's own: a function of outputs and targets that gives one number, or one for each example."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.data.batch import Batch, concat_batches, on_device
from secateur.errors import DataError, SecateurError
from secateur.evaluation.changes import Change, student_half_width
from secateur.options import kind_text
from secateur.utils.default_device import on_callers_device
from secateur.utils.failure_text import failure_text

Metric = Callable[[Any, Any], Any]
GROUPS = 20  # of examples that are left out in turn
CPU = torch.device("cpu")


def metric_name(metric: Metric) -> str:
    """Return the name of a metric: that of its function, or of its class."""
    return str(getattr(metric, "__name__", type(metric).__name__))


def is_higher_better(metric: Metric) -> bool:
    """Return the attribute `higher_is_better` of a metric, as torchmetrics has it; True without."""
    return bool(getattr(metric, "higher_is_better", True))


@dataclass(frozen=True, eq=False)
class MetricValues:
    """A metric of one network on the examples.

    Args:
        value: the metric on all examples; NaN where it has no value for any of them.
        samples: values with this mean, whose spread gives the error: one for each example (examples,), NaN for those
            for which the metric has none, or where the metric is one number for all of them, the pseudo-values of
            groups of examples (groups,), all of which are NaN where the metric has no value without one of the groups.
    """

    value: float
    samples: Tensor


def metric_change(dense: MetricValues, small: MetricValues) -> Change:
    """Return the change of a metric, with the interval of paired differences (jackknife where it is one number).

    Pairs are of the examples for which the metric has a value with both networks.
    Where no difference can be seen, as for equal class predictions, the examples say nothing about its size: the
    interval is infinite.
    """
    differences = small.samples - dense.samples
    differences = differences[~differences.isnan()]
    half_width = student_half_width(differences) if bool(differences.any()) else math.inf
    return Change(small.value - dense.value, half_width)


class MetricMeter:
    """A metric of several networks, batch by batch.

    A metric with one value for each example is averaged. One with a single number, such as F1 or mean intersection over
    union, is no mean over batches: outputs are collected in main memory, and it is called once on all of them, and once
    more for each group of examples that is left out.

    Args:
        metric: the function.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._values: list[list[Tensor]] = []  # of each batch and network: (examples,)
        self._collected: list[tuple[Batch, ...]] = []  # of each batch: the outputs of each network, with targets

    def add(self, batch: Batch, outputs: Sequence[Any], dense: Any) -> None:
        """Add the outputs of the networks on a batch.

        Args:
            batch: the batch.
            outputs: the output of each network.
            dense: the dense network's, which stands in the place of targets where there are none.

        Raises:
            DataError: the metric fails, or gives one value for each example for some batches only.
        """
        target, examples = metric_target(batch, dense), batch.size or 1
        if not self._collected:
            values = [call_metric(self._metric, output, target) for output in outputs]
            is_single = batch.is_one_example or batch.is_whole
            if is_single or all(value.shape == (examples,) for value in values):
                self._values.append([_checked_values(value, examples, is_single) for value in values])
                return
        if self._values:
            raise DataError(f"metric={metric_name(self._metric)} gave one value per example for some batches only")
        pairs = [on_device(Batch((output,), {}, target), CPU) for output in outputs]
        self._collected.append(tuple(pairs))

    def results(self) -> list[MetricValues]:
        """Return the metric of each network."""
        if not self._collected:
            by_network = [torch.cat(values).double().cpu() for values in zip(*self._values, strict=True)]
            return [MetricValues(float(values.nanmean()), values) for values in by_network]
        return [self._single_number(batches) for batches in zip(*self._collected, strict=True)]

    def _single_number(self, batches: Sequence[Batch]) -> MetricValues:
        try:
            whole_batch = concat_batches(batches)
        except RuntimeError as failure:
            raise DataError(
                f"metric={metric_name(self._metric)} gives one number, but outputs of several batches can't be "
                f"concatenated ({failure}); let it return one value per example"
            ) from failure
        count, value = whole_batch.size or 1, self._number(whole_batch)
        groups = min(GROUPS, count)
        numbers = torch.arange(count)
        jackknife_values = [
            self._number(whole_batch.take(numbers[numbers * groups // count != group])) for group in range(groups)
        ]
        without = torch.tensor(jackknife_values if groups > 1 else [value], dtype=torch.float64)  # (groups,)
        pseudo_values = groups * value - (groups - 1) * without
        has_all = bool(pseudo_values.isfinite().all())
        return MetricValues(value, pseudo_values if has_all else torch.full_like(pseudo_values, math.nan))

    def _number(self, batch: Batch) -> float:
        value = call_metric(self._metric, batch.args[0], batch.target)
        if value.numel() != 1:
            raise DataError(
                f"metric={metric_name(self._metric)} gave {tuple(value.shape)} for {batch.size} examples; let it "
                "return one number, or one value per example"
            )
        return float(value)


def metric_target(batch: Batch, dense: Any) -> Any:
    """Return what a metric compares outputs with: targets, or without any the dense network's output."""
    targets = batch.target if batch.metric_target is None else batch.metric_target
    return dense if targets is None else targets


def call_metric(metric: Metric, output: Any, target: Any) -> Tensor:
    """Call a metric of the user's own, and return its result as a tensor in float64.

    Raises:
        DataError: it fails, with its own error, or its result is no number.
    """
    forms = f"{kind_text(output)} as the outputs and {kind_text(target)} as the targets"
    try:
        with torch.no_grad():
            value = on_callers_device(metric)(output, target)
            return torch.as_tensor(value, dtype=torch.float64).detach()
    except SecateurError:
        raise
    except Exception as failure:
        raise DataError(
            f"metric={metric_name(metric)} fails for {forms}: {failure_text(failure)}; without targets "
            "the outputs of the dense network stand in their place"
        ) from failure


def _checked_values(value: Tensor, examples: int, is_single: bool) -> Tensor:
    """Return the values of a batch, (examples,): the mean where the batch is one example or can't be divided."""
    values = value.mean().reshape(1) if is_single and value.shape != (examples,) else value
    return values.reshape(-1)
