"""The records of a comparison of criteria."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateur.allocation.quantities import budget_text
from secateur.evaluation.metrics import MetricValues

NO_REPAIR = "none"


@dataclass(frozen=True, eq=False)
class RankedMetric:
    """A metric of the user's own, by which criteria are ranked.

    Args:
        name: its name.
        values: the metric of a network.
        is_higher_better: whether larger values are better.
    """

    name: str
    values: MetricValues
    is_higher_better: bool


@dataclass(frozen=True, eq=False)
class CriterionMetrics:
    """The metrics of a network on the examples of a comparison.

    Args:
        losses: the loss of each example. (examples,)
        accuracy: the fraction of right top classes, None where the targets are not classes.
        agreement: the fraction of examples with the dense network's top class, None where outputs are not classes.
        metric: the metric of the user's own, None where there is none.
    """

    losses: Tensor
    accuracy: float | None
    agreement: float | None
    metric: RankedMetric | None = None

    @staticmethod
    def of(losses: Tensor, right: Tensor, same: Tensor, metric: RankedMetric | None = None) -> "CriterionMetrics":
        """Average the metrics of each example.

        Args:
            losses: the losses. (examples,)
            right: 1 where the top class is right, 0 where it is wrong, NaN without classes. (examples,)
            same: 1 where the top class is the dense network's, else 0, NaN without classes. (examples,)
            metric: the metric of the user's own, if any.
        """
        accuracy, agreement = (None if bool(hits.isnan().all()) else float(hits.nanmean()) for hits in (right, same))
        return CriterionMetrics(losses, accuracy, agreement, metric)

    @property
    def costs(self) -> Tensor:
        """The values that criteria are ranked by, smaller ones better, (samples,): losses, or those of the metric.

        NaN stands for an example for which the metric has no value.
        """
        if self.metric is None:
            return self.losses
        samples = self.metric.values.samples
        return -samples if self.metric.is_higher_better else samples

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses.mean())

    @property
    def cost(self) -> float:
        """The number that criteria are ranked by, the smaller the better."""
        if self.metric is None:
            return self.loss
        return -self.metric.values.value if self.metric.is_higher_better else self.metric.values.value

    @property
    def as_dict(self) -> dict[str, float | None]:
        """The mean loss and the fractions, by name."""
        fractions = {"loss": self.loss, "accuracy": self.accuracy, "agreement": self.agreement}
        return fractions if self.metric is None else {**fractions, "metric": self.metric.values.value}

    def __str__(self) -> str:
        if self.metric is not None:
            return _four_digits(self.metric.values.value)
        fraction = self.accuracy if self.accuracy is not None else self.agreement
        return _four_digits(self.loss) + ("" if fraction is None else f" {fraction:.1%}")


def _four_digits(value: float) -> str:
    """Return a number with four significant digits, zeros among them, so that columns are aligned."""
    return f"{value:#.4g}".rstrip(".")


@dataclass(frozen=True, eq=False)
class ComparisonTrial:
    """One criterion at one budget, with or without repair.

    Args:
        by: the criterion.
        keep: the budget.
        repair: the repair, or "none".
        macs: the fraction of MACs that the pruned network has.
        seconds: the duration of the scoring.
        metrics: the metrics of the pruned network.
    """

    by: str
    keep: dict[str, float]
    repair: str
    macs: float
    seconds: float
    metrics: CriterionMetrics

    @property
    def budget(self) -> str:
        """The budget in words."""
        return budget_text(self.keep)


def trial_columns(trials: Sequence[ComparisonTrial]) -> dict[str, list[Any]]:
    """Return the columns of a table with one row for each trial."""
    columns: dict[str, list[Any]] = {
        "criterion": [trial.by for trial in trials],
        "keep": [trial.budget for trial in trials],
        "repair": [trial.repair for trial in trials],
        "macs": [trial.macs for trial in trials],
        "seconds": [trial.seconds for trial in trials],
    }
    metrics = [trial.metrics.as_dict for trial in trials]
    return columns | {name: [values[name] for values in metrics] for name in (metrics[0] if metrics else ())}
