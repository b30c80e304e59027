"""The records of a comparison of criteria."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateur.allocation.quantities import budget_text

NO_REPAIR = "none"


@dataclass(frozen=True, eq=False)
class CriterionMetrics:
    """The metrics of a network on the examples of a comparison.

    Args:
        losses: the loss of each example. (examples,)
        accuracy: the fraction of right top classes, None where the targets are not classes.
        agreement: the fraction of examples with the dense network's top class, None where outputs are not classes.
    """

    losses: Tensor
    accuracy: float | None
    agreement: float | None

    @staticmethod
    def of(losses: Tensor, right: Tensor, same: Tensor) -> "CriterionMetrics":
        """Average the metrics of each example.

        Args:
            losses: the losses. (examples,)
            right: 1 where the top class is right, 0 where it is wrong, NaN without classes. (examples,)
            same: 1 where the top class is the dense network's, else 0, NaN without classes. (examples,)
        """
        fractions = (None if bool(hits.isnan().all()) else float(hits.nanmean()) for hits in (right, same))
        return CriterionMetrics(losses, *fractions)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses.mean())

    @property
    def as_dict(self) -> dict[str, float | None]:
        """The mean loss and the fractions, by name."""
        return {"loss": self.loss, "accuracy": self.accuracy, "agreement": self.agreement}

    def __str__(self) -> str:
        fraction = self.accuracy if self.accuracy is not None else self.agreement
        return f"{self.loss:.4g}" + ("" if fraction is None else f" {fraction:.1%}")


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
    return columns | {name: [values[name] for values in metrics] for name in ("loss", "accuracy", "agreement")}
