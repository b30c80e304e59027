"""Measures of a smaller network beside the dense one, example by example: loss, accuracy, agreement and divergence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.cost import Cost
from secateur.data.batch import Batch
from secateur.evaluation.changes import Change
from secateur.evaluation.class_hits import class_hits, top_classes
from secateur.evaluation.dense_outputs import DenseOutputs
from secateur.evaluation.divergence import divergence, relative_errors
from secateur.evaluation.losses import Loss, Reference, by_example, example_losses
from secateur.evaluation.metrics import Metric, MetricMeter, MetricValues, metric_change
from secateur.evaluation.outputs import is_embedding, is_logits, main_output, with_named_scores
from secateur.evaluation.records import Latency, Metrics
from secateur.graph.contexts import preserved, run_seeded
from secateur.utils.progress import track


@dataclass(frozen=True, eq=False)
class OutputPair:
    """The outputs of the dense network and of a smaller one for a batch.

    Args:
        batch: the batch.
        dense: the dense network's output.
        small: the smaller network's output.
    """

    batch: Batch
    dense: Any
    small: Any

    @property
    def examples(self) -> int:
        """The number of examples in the batch."""
        return self.batch.size or 1

    def losses(self, output: Any, loss: Loss | None = None) -> Tensor:
        """Return the loss of each example, against the labels or the dense network's output, (examples,).

        Args:
            output: one of both outputs.
            loss: the user's own loss; None for cross entropy, squared error, or the divergence without labels.
        """
        reference = Reference(self.batch.target, self.dense, has_token_scores=self.batch.has_token_scores)
        return example_losses(loss, output, reference, self.examples).double().cpu()

    def comparable(self, output: Any) -> Any:
        """Return one of both outputs with the names by which class scores are known."""
        return with_named_scores(output, self.batch.has_token_scores)

    def accuracies(self, output: Any) -> Tensor:
        """Return the fraction of right top classes in each example, (examples,); NaN without class labels."""
        return class_hits(self.comparable(output), self.batch.target, self.examples)

    def agreements(self, output: Any) -> Tensor:
        """Return the fraction of the dense network's top classes in each example, NaN without classes, (examples,)."""
        dense = self.comparable(self.dense)
        has_classes = main_output(dense).dim() == 2 or is_logits(dense)
        has_classes = has_classes and not self._is_regression and not is_embedding(dense)
        return class_hits(self.comparable(output), top_classes(dense) if has_classes else None, self.examples)

    def divergences(self, output: Any, temperature: float = 1.0) -> Tensor:
        """Return the divergence of each example from the dense network's output, (examples,).

        Args:
            output: one of both outputs.
            temperature: by which class scores are divided.
        """
        if self._is_regression:
            errors = relative_errors(output, self.dense)
        else:
            errors = divergence(self.comparable(output), self.comparable(self.dense), temperature=temperature)
        return by_example(errors, self.examples).double().cpu()

    @property
    def _is_regression(self) -> bool:
        """True where the targets are numbers like the outputs, which are then no class scores."""
        target = self.batch.target
        is_real = isinstance(target, Tensor) and target.is_floating_point()
        return is_real and target.shape == main_output(self.dense).shape

    def measures(self, loss: Loss | None = None) -> Tensor:
        """Return all measures of both networks, (networks, measures, examples)."""
        rows = [
            torch.stack([self.losses(output, loss), self.accuracies(output), self.agreements(output),
                         self.divergences(output)])
            for output in (self.dense, self.small)
        ]  # fmt: skip
        return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class ExampleMeasures:
    """The measures of one network, example by example; NaN where there is no such measure.

    Args:
        losses: the losses. (examples,)
        accuracies: the fractions of right top classes. (examples,)
        agreements: the fractions of the dense network's top classes. (examples,)
        divergences: the divergences from the dense network's output. (examples,)
        metric: the user's own metric, None where there is none.
    """

    losses: Tensor
    accuracies: Tensor
    agreements: Tensor
    divergences: Tensor
    metric: MetricValues | None = None

    def metrics(self, cost: Cost, latency: Latency) -> Metrics:
        """Return the means, beside the cost and the time of the network."""
        accuracy, agreement = optional_mean(self.accuracies), optional_mean(self.agreements)
        loss, divergence = float(self.losses.mean()), float(self.divergences.mean())
        metric = None if self.metric is None else self.metric.value
        return Metrics(loss, accuracy, agreement, divergence, cost, latency, metric)

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
) -> tuple[ExampleMeasures, ExampleMeasures]:
    """Run both networks on the same examples, and return the measures of the dense one and of the smaller one.

    Args:
        dense: the dense network.
        small: the smaller network.
        batches: the examples.
        loss: the user's own loss, or None.
        metric: the user's own metric, or None.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
    """
    meter = None if metric is None else MetricMeter(metric)
    rows = []
    with preserved(dense, writes), preserved(small, writes):
        for batch in track(batches, "examples in both networks"):
            pair = OutputPair(batch, run_seeded(dense, batch), run_seeded(small, batch))
            rows.append(pair.measures(loss))
            if meter is not None:
                meter.add(pair.batch, (pair.dense, pair.small), pair.dense)
    dense_rows, small_rows = torch.cat(rows, 2)  # (measures, examples) each
    dense_metric, small_metric = (None, None) if meter is None else meter.results()
    dense_measures, small_measures = ExampleMeasures(*dense_rows), ExampleMeasures(*small_rows)
    return replace(dense_measures, metric=dense_metric), replace(small_measures, metric=small_metric)


def output_divergences(
    dense: DenseOutputs, small: nn.Module, batches: Sequence[Batch], writes: bool = True, temperature: float = 1.0
) -> Tensor:
    """Return the divergence of the smaller network's outputs from the dense one's, (examples,).

    Args:
        dense: the dense network's outputs.
        small: the smaller network.
        batches: the examples.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
        temperature: by which class scores are divided.
    """
    with dense.ready_for(batches), preserved(small, writes):
        tracked = track(batches, "examples in both networks")
        pairs = (OutputPair(batch, dense.of(batch), run_seeded(small, batch)) for batch in tracked)
        return torch.cat([pair.divergences(pair.small, temperature) for pair in pairs])


def optional_mean(values: Tensor) -> float | None:
    """Return the mean of the values that are not NaN, None if all are, of values (examples,)."""
    return None if bool(values.isnan().all()) else float(values.nanmean())
