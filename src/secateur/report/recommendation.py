"""The recommendation of a comparison of criteria, in words."""

import math
from typing import TYPE_CHECKING

from secateur.evaluation.changes import standard_error
from secateur.report.comparison_records import NO_REPAIR
from secateur.utils.plurals import number_of

if TYPE_CHECKING:
    from secateur.report.comparison import Comparison


def recommendation_text(comparison: "Comparison", repair: str) -> str:
    """Return the best criterion with a repair, or with "none", and the evidence for it."""
    best, equals = comparison.best(repair), comparison.equals(repair)
    losses, metric = comparison.losses(best, repair), comparison.dense.metric
    error = standard_error(losses)
    interval = f" ± {error:.2g}" if math.isfinite(error) else ""
    condition = "without repair" if repair == NO_REPAIR else f"after {repair}"
    measure = "least loss" if metric is None else f"best {metric.name}"
    mean = comparison.mean_cost(best, repair) * (-1 if metric is not None and metric.is_higher_better else 1)
    dense = comparison.dense.loss if metric is None else metric.values.value
    evidence = (
        f"{condition}: {best} has the {measure}, {mean:.4g}{interval} on average over "
        f"{number_of(len(comparison.budgets), 'budget')} and {number_of(len(comparison.dense.losses), 'example')} "
        f"(dense {dense:.4g})"
    )
    if not equals:
        comparative = "a higher loss" if metric is None else f"a worse {metric.name}"
        return f"{evidence}; every other criterion has {comparative}, with 95 % confidence"
    cheapest = min([best, *equals], key=comparison.seconds)
    note = "" if cheapest == best else f"; {cheapest} is the cheapest of them, {comparison.seconds(cheapest):.1f} s"
    return f"{evidence}; on these examples it does not differ significantly from {', '.join(equals)}{note}"
