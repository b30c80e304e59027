"""Comparison of criteria: the losses at each budget, the agreement of the rankings, and a recommendation."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.evaluation.changes import standard_error
from secateur.files import text_writer, write_files
from secateur.importance.rank_correlation import agreements
from secateur.importance.scores import Scores
from secateur.options.call_checks import checked_calls
from secateur.options.table import as_path
from secateur.report.comparison_page import comparison_json, comparison_page
from secateur.report.comparison_plot import plot_comparison
from secateur.report.comparison_records import ComparisonTrial, CriterionMetrics, trial_columns
from secateur.report.recommendation import recommendation_text
from secateur.utils.data_frame import data_frame
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

CONFIDENCE = 0.95


def _or_inf(cost: float) -> float:
    """Return a cost; infinity in place of NaN, so that it is never the least."""
    return math.inf if math.isnan(cost) else cost


@checked_calls
@dataclass(frozen=True, eq=False)
class Comparison:
    """The losses of each criterion on examples that no criterion was given.

    Args:
        title: the model's class.
        trials: every criterion at every budget, with and without repair.
        scores: the scores by each criterion, by its name.
        refused: the criteria that cannot rank this network, with their reasons.
        dense: the metrics of the dense network on the same examples.
        held_out: True where separate test examples were given; otherwise a quarter of the examples was held out.
    """

    title: str
    trials: tuple[ComparisonTrial, ...]
    scores: Mapping[str, Scores]
    refused: Mapping[str, str]
    dense: CriterionMetrics
    held_out: bool

    @cached_property
    def repairs(self) -> tuple[str, ...]:
        """The repairs that were tried, "none" among them."""
        return tuple(dict.fromkeys(trial.repair for trial in self.trials))

    @cached_property
    def budgets(self) -> tuple[str, ...]:
        """The budgets, in words."""
        return tuple(dict.fromkeys(trial.budget for trial in self.trials))

    def losses(self, by: str, repair: str) -> Tensor:
        """Return the loss of each example (examples,) with a criterion, averaged over all budgets.

        With a metric of the user's own its values, negative where larger ones are better.

        Raises:
            NameMatchError: no trial has this criterion and repair.
        """
        losses = [trial.metrics.costs for trial in self.trials if (trial.by, trial.repair) == (by, repair)]
        if not losses:
            raise NameMatchError(
                f"no trial used {by!r} with repair {repair!r}; criteria: {', '.join(self.scores)}; repairs: "
                f"{', '.join(self.repairs)}"
            )
        return torch.stack(losses).nanmean(0)

    def mean_cost(self, by: str, repair: str) -> float:
        """Return the mean over all budgets of the number that criteria are ranked by, the smaller the better."""
        costs = [trial.metrics.cost for trial in self.trials if (trial.by, trial.repair) == (by, repair)]
        return sum(costs) / len(costs)

    def ranking(self, repair: str) -> list[str]:
        """Return the criteria in ascending order of their mean loss over all budgets; those without one come last."""
        return sorted(self.scores, key=lambda by: _or_inf(self.mean_cost(by, repair)))

    def best(self, repair: str) -> str:
        """Return the criterion with the least mean loss over all budgets."""
        return self.ranking(repair)[0]

    def equals(self, repair: str) -> list[str]:
        """Return the criteria that are not significantly worse than the best one.

        Student's t test of the paired differences in loss, at 95 % for all criteria together (Bonferroni). One example
        tells no difference.
        """
        from scipy.special import stdtrit  # a quarter of the time that `scipy.stats` takes to be imported

        best, *others = self.ranking(repair)
        confidence = 1 - (1 - CONFIDENCE) / max(len(others), 1)
        equals = []
        for by in others:
            gaps = self.losses(by, repair) - self.losses(best, repair)
            gaps = gaps[~gaps.isnan()]
            quantile = float(stdtrit(max(len(gaps) - 1, 1), (1 + confidence) / 2))
            if len(gaps) and not float(gaps.mean()) > quantile * standard_error(gaps):
                equals.append(by)
        return equals

    def recommendation(self, repair: str) -> str:
        """Return the best criterion and the evidence for it, in words."""
        return recommendation_text(self, repair)

    def seconds(self, by: str) -> float:
        """Return the duration of scoring by a criterion."""
        return next(trial.seconds for trial in self.trials if trial.by == by)

    def agreement(self, by: str, other: str) -> float:
        """Return Spearman's correlation of two rankings, averaged over the groups where it is defined."""
        rows = agreements(self.scores[by], self.scores[other])[:-1]
        correlations = [row.spearman for row in rows if row.spearman == row.spearman]
        return sum(correlations) / len(correlations) if correlations else float("nan")

    def rows(self, repair: str) -> list[list[str]]:
        """Return a row for each criterion: seconds, and the metrics at each budget; * marks the least loss."""
        trials = [trial for trial in self.trials if trial.repair == repair]
        least_losses = {
            budget: min(_or_inf(trial.metrics.cost) for trial in trials if trial.budget == budget)
            for budget in self.budgets
        }
        rows = [["criterion", "seconds", *self.budgets]]
        for by in self.ranking(repair):
            trials_by = [trial for trial in trials if trial.by == by]
            cells = (
                f"{'*' * (trial.metrics.cost <= least_losses[trial.budget])}{trial.metrics}" for trial in trials_by
            )
            rows.append([by, f"{trials_by[0].seconds:.1f}", *cells])
        return rows

    def correlations(self) -> list[list[str]]:
        """Return Spearman's correlations of all pairs of rankings as a table."""
        names = list(self.scores)
        return [["", *names], *([a, *(f"{self.agreement(a, b):z.2f}" for b in names)] for a in names)]

    def __str__(self) -> str:
        lines = [self.about]
        for repair in self.repairs:
            lines += ["", self.recommendation(repair), *align_columns(self.rows(repair))]
        lines += ["", "agreement of the rankings (Spearman, mean over groups)", *align_columns(self.correlations())]
        lines += [f"{name} cannot rank this network: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        criteria, budgets = ", ".join(self.scores), ", ".join(self.budgets)
        return f"Comparison({self.title!r}, {criteria}; {budgets}; {len(self.dense.losses)} examples)"

    def _repr_html_(self) -> str:
        return html_table(self.recommendation(self.repairs[-1]), self.rows(self.repairs[-1]))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the comparison's JSON form."""
        return dict(json.loads(self.to_json()))

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each criterion, budget and repair.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame(trial_columns(self.trials))

    @property
    def about(self) -> str:
        """The metrics and the examples, in words."""
        examples = "other examples" if self.held_out else "examples held out"
        fraction = "accuracy" if self.dense.accuracy is not None else "agreement with the dense network"
        metrics = "loss" if self.dense.agreement is None else f"loss and {fraction}"
        metrics = metrics if self.dense.metric is None else self.dense.metric.name
        return f"{self.title}: {metrics} on {len(self.dense.losses)} {examples}"

    def plot(self, ax: "Axes | None" = None, repair: str | None = None) -> "Axes":
        """Plot the loss, or the metric, of each criterion over the fraction of MACs, after the last repair or this."""
        return plot_comparison(self, ax, self.repairs[-1] if repair is None else repair)

    def to_json(self) -> str:
        """Return the comparison as JSON."""
        return comparison_json(self)

    def to_html(self) -> str:
        """Return the comparison as one self-contained HTML page with plots."""
        return comparison_page(self)

    def save(self, folder: str | Path) -> None:
        """Write comparison.json and comparison.html.

        Raises:
            StorageError: The files cannot be written. Files that existed before are unchanged.
        """
        texts = {"comparison.json": self.to_json(), "comparison.html": self.to_html()}
        write_files(as_path(folder, "folder"), {name: text_writer(text) for name, text in texts.items()})
