"""The JSON and HTML forms of a comparison of criteria."""

import json
import math
from typing import TYPE_CHECKING

from secateur.evaluation.changes import student_half_width
from secateur.files.records import with_digest
from secateur.report.comparison_records import NO_REPAIR, ComparisonTrial
from secateur.report.explanations import criterion_explanation, terms_in
from secateur.report.line_chart import Curve, CurvePoint, LineChart, line_chart
from secateur.report.pages import render_page
from secateur.version import __version__

if TYPE_CHECKING:
    from secateur.report.comparison import Comparison

FORMAT = "secateur comparison 1"


def comparison_json(comparison: "Comparison") -> str:
    """Return a comparison as JSON with a digest."""
    trials = [
        {"by": trial.by, "keep": trial.keep, "repair": trial.repair, "macs": trial.macs, "seconds": trial.seconds}
        | trial.metrics.as_dict
        for trial in comparison.trials
    ]
    content = {
        "format": FORMAT,
        "secateur": __version__,
        "title": comparison.title,
        "held_out": comparison.held_out,
        "examples": len(comparison.dense.losses),
        "dense": comparison.dense.as_dict,
        "trials": trials,
        "recommendations": {repair: comparison.recommendation(repair) for repair in comparison.repairs},
        "refused": dict(comparison.refused),
    }
    return with_digest(json.dumps(content, indent=1).encode()).decode()


def comparison_page(comparison: "Comparison") -> str:
    """Return a comparison as one self-contained HTML page with charts."""
    criteria = [(by, criterion_explanation(by) or "A criterion of your own.") for by in comparison.scores]
    return render_page(
        "comparison.html",
        comparison=comparison,
        measure=_measure(comparison),
        columns=_columns_text(comparison),
        charts=[_comparison_chart(comparison, repair) for repair in comparison.repairs],
        correlations=comparison.correlations(),
        tint=_tint,
        terms=[*terms_in([comparison.about]), *criteria],
    )


def _measure(comparison: "Comparison") -> str:
    metric = comparison.dense.metric
    return "loss" if metric is None else metric.name


def _columns_text(comparison: "Comparison") -> str:
    """Say what the cells of the tables hold."""
    dense = comparison.dense
    if dense.metric is not None:
        return f"{dense.metric.name} at each budget."
    fraction = "accuracy" if dense.accuracy is not None else "agreement with the dense network"
    return "Loss at each budget." if dense.agreement is None else f"Loss and {fraction} at each budget."


def _comparison_chart(comparison: "Comparison", repair: str) -> LineChart:
    """Place the curves of all criteria, in the same order for each repair."""
    curves = []
    for by in comparison.scores:
        trials = [trial for trial in comparison.trials if (trial.by, trial.repair) == (by, repair)]
        points = [_point(comparison, trial) for trial in sorted(trials, key=lambda trial: trial.macs)]
        curves.append(Curve(by, points))
    title = "Without repair" if repair == NO_REPAIR else f"After {repair}"
    dense = _sign(comparison) * comparison.dense.cost
    return line_chart(title, "MACs that remain", _measure(comparison), curves, dense)


def _point(comparison: "Comparison", trial: ComparisonTrial) -> CurvePoint:
    value, half_width = _sign(comparison) * trial.metrics.cost, student_half_width(trial.metrics.costs)
    interval = f" ± {half_width:.2g}" if math.isfinite(half_width) else ""
    text = f"{trial.by}, {trial.budget}: {value:.4g}{interval}"
    return CurvePoint(trial.macs, value, half_width, text)


def _sign(comparison: "Comparison") -> int:
    """Return -1 where larger values of the measure are better, as costs are their negatives."""
    metric = comparison.dense.metric
    return -1 if metric is not None and metric.is_higher_better else 1


def _tint(correlation: str) -> int:
    """Return the strength in percent of the colour behind a correlation."""
    value = float(correlation)
    return 0 if math.isnan(value) else round(30 * max(value, 0))
