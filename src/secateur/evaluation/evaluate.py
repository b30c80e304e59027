"""Measures of a smaller network beside the dense one, example by example: loss, accuracy, agreement and divergence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateur.coupling.cost import Cost
from secateur.data.batch import Batch
from secateur.evaluation.changes import Change
from secateur.evaluation.dense_outputs import DenseOutputs
from secateur.evaluation.losses import Loss
from secateur.evaluation.metric_checks import warn_without_value
from secateur.evaluation.metrics import Metric, MetricMeter, MetricValues, metric_change
from secateur.evaluation.output_pairs import OutputPair
from secateur.evaluation.perplexity import PerplexityMeter, WordReader
from secateur.evaluation.records import Latency, Metrics
from secateur.graph.contexts import isolated_evaluation, run_seeded
from secateur.utils.progress import track


@dataclass(frozen=True, eq=False)
class ExampleMeasures:
    """The measures of one network, example by example; NaN where there is no such measure.

    Args:
        losses: the losses. (examples,)
        accuracies: the fractions of right top classes. (examples,)
        agreements: the fractions of the dense network's top classes. (examples,)
        divergences: the divergences from the dense network's output. (examples,)
        metric: the user's own metric, None where there is none.
        perplexity: the perplexity of all words that count, None where outputs or labels are no words.
    """

    losses: Tensor
    accuracies: Tensor
    agreements: Tensor
    divergences: Tensor
    metric: MetricValues | None = None
    perplexity: float | None = None

    def metrics(self, cost: Cost, latency: Latency) -> Metrics:
        """Return the means, beside the cost and the time of the network."""
        accuracy, agreement = optional_mean(self.accuracies), optional_mean(self.agreements)
        loss, divergence = float(self.losses.mean()), float(self.divergences.mean())
        metric = None if self.metric is None else self.metric.value
        return Metrics(loss, accuracy, agreement, divergence, cost, latency, metric, self.perplexity)

    def changes_from(self, dense: "ExampleMeasures") -> dict[str, Change]:
        """Return the changes of all measures from the dense network on the same examples, by name, with intervals."""
        changes = {
            "loss": Change.of(self.losses - dense.losses),
            "accuracy": Change.of(self.accuracies - dense.accuracies),
            "agreement": Change.of(self.agreements - dense.agreements),
            "divergence": Change.of(self.divergences),
        }
        if self.metric is not None and dense.metric is not None:
            changes["metric"] = metric_change(dense.metric, self.metric)
        return {name: change for name, change in changes.items() if change is not None}


def evaluate(
    dense: nn.Module,
    small: nn.Module,
    batches: Sequence[Batch],
    loss: Loss | None = None,
    metric: Metric | None = None,
    writes: bool = True,
    words_of: WordReader | None = None,
) -> tuple[ExampleMeasures, ExampleMeasures]:
    """Run both networks on the same examples, and return the measures of the dense one and of the smaller one.

    Args:
        dense: the dense network.
        small: the smaller network.
        batches: the examples.
        loss: the user's own loss, or None.
        metric: the user's own metric, or None.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
        words_of: the words that outputs predict, for the perplexity; None where outputs are no scores of words.
    """
    meter = None if metric is None else MetricMeter(metric)
    words = None if words_of is None else PerplexityMeter(words_of, networks=2)
    rows, dense_outputs = [], DenseOutputs(dense, writes)
    with isolated_evaluation(dense, writes), isolated_evaluation(small, writes):
        scales = dense_outputs.scales_of(batches)
        for batch in track(batches, "examples in both networks"):
            pair = OutputPair(batch, dense_outputs.of(batch), run_seeded(small, batch), scales)
            rows.append(pair.measures(loss))
            if meter is not None:
                meter.add(pair.batch, (pair.dense, pair.small), pair.dense)
            if words is not None:
                words.add(pair.batch, (pair.dense, pair.small))
    dense_rows, small_rows = torch.cat(rows, 2)  # (measures, examples) each
    dense_metric, small_metric = (None, None) if meter is None else meter.results()
    if metric is not None and dense_metric is not None and small_metric is not None:
        warn_without_value(metric, dense_metric, small_metric)
    dense_perplexity, small_perplexity = (None, None) if words is None else words.values()
    dense_measures, small_measures = ExampleMeasures(*dense_rows), ExampleMeasures(*small_rows)
    return (
        replace(dense_measures, metric=dense_metric, perplexity=dense_perplexity),
        replace(small_measures, metric=small_metric, perplexity=small_perplexity),
    )


def output_divergences(
    dense: DenseOutputs,
    small: nn.Module,
    batches: Sequence[Batch],
    writes: bool = True,
    temperature: float = 1.0,
    scales: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return the divergence of the smaller network's outputs from the dense one's, (examples,).

    Args:
        dense: the dense network's outputs.
        small: the smaller network.
        batches: the examples.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
        temperature: by which class scores are divided.
        scales: the mean squares of the dense network's outputs; by default those over these batches.
    """
    scales = dense.scales_of(batches) if scales is None else scales
    with dense.ready_for(batches), isolated_evaluation(small, writes):
        tracked_batches = track(batches, "examples in both networks")
        pairs = (OutputPair(batch, dense.of(batch), run_seeded(small, batch), scales) for batch in tracked_batches)
        return torch.cat([pair.divergences(pair.small, temperature) for pair in pairs])


def optional_mean(values: Tensor) -> float | None:
    """Return the mean of the values that are not NaN, None if all are, of values (examples,)."""
    return None if bool(values.isnan().all()) else float(values.nanmean())
