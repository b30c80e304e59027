"""Several criteria side by side: what each lost at each budget, how far they agree, and which one to take."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from secateur.allocation.quantities import quantity_text
from secateur.errors import NameMatchError
from secateur.files import text_writer, write_files
from secateur.files.records import sealed
from secateur.importance.rank_correlation import agreements
from secateur.importance.scores import Scores
from secateur.report.html import despine, figure_svg
from secateur.utils.text_table import align_columns
from secateur.version import __version__

FORMAT = "secateur comparison 1"
NO_REPAIR = "none"
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class CriterionMetrics:
    """A network on the examples that it is judged by.

    Args:
        losses: of each example (examples,).
        accuracy: the fraction of right top classes, None where there are no labels that are classes.
        agreement: the fraction with the dense network's top class, None where outputs are no classes.
    """

    losses: Tensor
    accuracy: float | None
    agreement: float | None

    @staticmethod
    def of(losses: Tensor, right: Tensor, same: Tensor) -> "CriterionMetrics":
        """From each example's loss, and whether its class is right and the dense network's, NaN for neither."""
        fractions = (None if bool(part.isnan().all()) else float(part.nanmean()) for part in (right, same))
        return CriterionMetrics(losses, *fractions)

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


@dataclass(frozen=True, eq=False)
class ComparisonTrial:
    """One criterion at one budget, as it is or mended.

    Args:
        by: the criterion.
        keep: the budget.
        repair: how the network was mended, or "none".
        macs: the fraction of the MACs that is left.
        seconds: what the ranking took.
        found: what was measured.
    """

    by: str
    keep: dict[str, float]
    repair: str
    macs: float
    seconds: float
    found: CriterionMetrics


@dataclass(frozen=True, eq=False)
class Comparison:
    """What each criterion lost, measured on examples that none of them saw.

    Args:
        title: the model's class.
        trials: all of them.
        scores: what each criterion gave, by its name.
        refused: criteria that can't rank this network, with their reasons.
        dense: the dense network on the same examples.
        held_out: whether the examples were given for the purpose; else a quarter was held out.
    """

    title: str
    trials: tuple[ComparisonTrial, ...]
    scores: Mapping[str, Scores]
    refused: Mapping[str, str]
    dense: CriterionMetrics
    held_out: bool

    @cached_property
    def repairs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(trial.repair for trial in self.trials))

    @cached_property
    def budgets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_budget(trial) for trial in self.trials))

    def losses(self, by: str, repair: str) -> Tensor:
        """Each example's loss with a criterion, the mean over all budgets. (examples,)

        Raises:
            NameMatchError: there was no such trial.
        """
        found = [trial.found.losses for trial in self.trials if (trial.by, trial.repair) == (by, repair)]
        if not found:
            raise NameMatchError(
                f"nothing was tried by {by!r} with repair {repair!r}; there are {', '.join(self.scores)} with "
                f"{', '.join(self.repairs)}"
            )
        return torch.stack(found).mean(0)

    def ranking(self, repair: str) -> list[str]:
        """The criteria, from the one that lost least on the mean over all budgets."""
        return sorted(self.scores, key=lambda by: float(self.losses(by, repair).mean()))

    def best(self, repair: str) -> str:
        """The criterion that lost least on the mean over all budgets."""
        return self.ranking(repair)[0]

    def equals(self, repair: str) -> list[str]:
        """Criteria that these examples can't tell from the best.

        Their paired differences, by Student's t at 95 % for all comparisons together (Bonferroni), may be nothing.
        """
        best, *others = self.ranking(repair)
        ahead = self.losses(best, repair)
        level = 1 - (1 - LEVEL) / max(len(others), 1)
        found = []
        for by in others:
            gaps = self.losses(by, repair) - ahead
            reach = float(stats.t.ppf((1 + level) / 2, max(len(gaps) - 1, 1))) * float(gaps.std()) / len(gaps) ** 0.5
            if float(gaps.mean()) <= reach:
                found.append(by)
        return found

    def recommendation(self, repair: str) -> str:
        """Which criterion to take, and what that follows from."""
        best, equals = self.best(repair), self.equals(repair)
        losses = self.losses(best, repair)
        error = float(losses.std()) / len(losses) ** 0.5
        after = "as it is cut" if repair == NO_REPAIR else f"after {repair}"
        said = (
            f"{after}: {best} loses least, {float(losses.mean()):.4g} ± {error:.2g} on the mean over "
            f"{len(self.budgets)} budgets and {len(losses)} examples (dense {self.dense.loss:.4g})"
        )
        if not equals:
            return f"{said}; every other one loses more, with 95 % confidence"
        cheapest = min([best, *equals], key=self.seconds)
        rest = "" if cheapest == best else f"; {cheapest} is the cheapest of them, {self.seconds(cheapest):.1f} s"
        return f"{said}; these examples can't tell it from {', '.join(equals)}{rest}"

    def seconds(self, by: str) -> float:
        """What a ranking took."""
        return next(trial.seconds for trial in self.trials if trial.by == by)

    def agreement(self, by: str, other: str) -> float:
        """Spearman's correlation of two rankings, the mean over groups of those where there is one."""
        rows = agreements(self.scores[by], self.scores[other])[:-1]
        found = [row.spearman for row in rows if row.spearman == row.spearman]
        return sum(found) / len(found) if found else float("nan")

    def rows(self, repair: str) -> list[list[str]]:
        """Criterion, seconds, and at each budget the loss, * for the least, and the accuracy or agreement if any."""
        own = [trial for trial in self.trials if trial.repair == repair]
        least = {budget: min(t.found.loss for t in own if _budget(t) == budget) for budget in self.budgets}
        rows = [["criterion", "seconds", *self.budgets]]
        for by in self.ranking(repair):
            tried = [trial for trial in own if trial.by == by]
            marks = ("*" if trial.found.loss <= least[_budget(trial)] else "" for trial in tried)
            cells = (f"{mark}{_cell(trial.found)}" for mark, trial in zip(marks, tried, strict=True))
            rows.append([by, f"{tried[0].seconds:.1f}", *cells])
        return rows

    def correlations(self) -> list[list[str]]:
        """Spearman's correlation of every two rankings."""
        names = list(self.scores)
        return [["", *names], *([a, *(f"{self.agreement(a, b):.2f}" for b in names)] for a in names)]

    def __str__(self) -> str:
        lines = [self.about]
        for repair in self.repairs:
            lines += ["", self.recommendation(repair), *align_columns(self.rows(repair))]
        lines += ["", "how far the rankings agree (Spearman, mean over groups)", *align_columns(self.correlations())]
        lines += [f"{name} can't rank this network: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)

    @property
    def about(self) -> str:
        """Where the figures come from, in words."""
        chosen = "other examples" if self.held_out else "examples held out"
        shown = "accuracy" if self.dense.accuracy is not None else "agreement with the dense network"
        with_class = "" if self.dense.agreement is None else f" and {shown}"
        return f"{self.title}: loss{with_class} on {len(self.dense.losses)} {chosen}"

    def to_json(self) -> str:
        """The comparison for programs."""
        trials = [
            {"by": t.by, "keep": t.keep, "repair": t.repair, "macs": t.macs, "seconds": t.seconds, **_figures(t.found)}
            for t in self.trials
        ]
        text = json.dumps(
            {
                "format": FORMAT,
                "secateur": __version__,
                "title": self.title,
                "held_out": self.held_out,
                "examples": len(self.dense.losses),
                "dense": _figures(self.dense),
                "trials": trials,
                "recommendations": {repair: self.recommendation(repair) for repair in self.repairs},
                "refused": dict(self.refused),
            },
            indent=1,
        )
        return sealed(text.encode()).decode()

    def figure(self) -> Figure:
        """The loss of every criterion against what is left of the MACs, one plot for each repair."""
        figure = Figure(figsize=(4.6 * len(self.repairs), 3.6), layout="constrained")
        drawn = figure.subplots(1, len(self.repairs), squeeze=False)[0]
        for axes, repair in zip(drawn, self.repairs, strict=True):
            despine(axes).axhline(self.dense.loss, color="#999", linewidth=0.8, linestyle=":")
            for by in self.ranking(repair):
                points = sorted((t.macs, t.found.loss) for t in self.trials if (t.by, t.repair) == (by, repair))
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=by)
            axes.set_xlabel("MACs left")
            axes.set_ylabel("loss")
            axes.set_title("as it is cut" if repair == NO_REPAIR else f"after {repair}", fontsize=9)
            axes.legend(frameon=False, fontsize=7)
        return figure

    def to_html(self) -> str:
        """The comparison as one self-contained page with plots."""
        page = Environment(loader=PackageLoader("secateur", "report"), autoescape=True).get_template("comparison.html")
        return page.render(comparison=self, plot=figure_svg(self.figure()), version=__version__)

    def save(self, folder: str | Path) -> None:
        """Write comparison.json and comparison.html.

        Raises:
            StorageError: they can't be written; files that were there before are as they were.
        """
        made = {"comparison.json": self.to_json(), "comparison.html": self.to_html()}
        write_files(Path(folder), {name: text_writer(text) for name, text in made.items()})


def _budget(trial: ComparisonTrial) -> str:
    return ", ".join(quantity_text(unit, value) for unit, value in trial.keep.items())


def _cell(found: CriterionMetrics) -> str:
    fraction = found.accuracy if found.accuracy is not None else found.agreement
    return f"{found.loss:.4g}" + ("" if fraction is None else f" {fraction:.1%}")


def _figures(found: CriterionMetrics) -> dict[str, Any]:
    return {"loss": found.loss, "accuracy": found.accuracy, "agreement": found.agreement}
