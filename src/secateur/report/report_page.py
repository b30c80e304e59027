"""The report as one self-contained HTML page."""

from collections.abc import Mapping

from torch import Tensor

from secateur.allocation.budget import COUNTED
from secateur.allocation.quantities import budget_text
from secateur.importance.scores import Scores
from secateur.report.explanations import criterion_explanation, terms_in
from secateur.report.figures import Figures
from secateur.report.group_charts import UNFOLDED, bars_by_kind, score_charts
from secateur.report.pages import KeyFigure, render_page, short_count
from secateur.report.repairs_text import divergence_text
from secateur.report.text import LAYER_COLUMNS, facts_lines, layer_rows, report_rows, time_rows


def report_page(report: Figures, scores: Scores | None, kept: Mapping[str, Tensor]) -> str:
    """Return the page, with the units of each group and, where there are scores, the score of each unit.

    Args:
        report: the figures.
        scores: the scores of the units, if any.
        kept: the indices of the units that were kept, by group; for other groups those with the highest scores.
    """
    rows = report_rows(report)
    charts = [] if scores is None else score_charts(scores, report.groups, kept)
    scored_count = sum(scores is not None and name in scores for name in report.groups)  # blocks may have none
    return render_page(
        "report.html",
        report=report,
        budget=budget_text(report.keep),
        key_figures=key_figures(report),
        facts=facts_lines(report),
        warnings=report.settings.get("warnings", ()),
        repairs=_repair_rows(report),
        rows=rows,
        next_unit=next((unit for unit in report.keep if unit in COUNTED), "macs"),
        next_bound=_next_bound(report),
        terms=terms_in(label for label, *_ in rows) + terms_in(change for *_, change in rows if "±" in change),
        times=time_rows(report),
        kinds=bars_by_kind(report.groups, report.kinds),
        charts=charts,
        unfolded=UNFOLDED,
        hidden=scored_count - len(charts),
        criterion=criterion_explanation(report.settings["by"]) if report.sparsity is None else "",
        layer_head=LAYER_COLUMNS,
        layers=[] if report.sparsity is None else layer_rows(report.sparsity),
    )


def key_figures(report: Figures) -> list[KeyFigure]:
    """Return the key figures: the fractions of the costs that remain, the speed, and the change in quality."""
    dense, pruned = report.dense, report.pruned
    costs = [
        KeyFigure(label, f"{after / max(before, 1):.1%}", f"{short_count(after)} of {short_count(before)} remain")
        for label, before, after in (
            ("MACs", dense.cost.macs, pruned.cost.macs),
            ("Parameters", dense.cost.params, pruned.cost.params),
        )
    ]
    times = f"{pruned.latency.median:.3g} ms instead of {dense.latency.median:.3g} ms"
    speed = KeyFigure("Speed", f"{dense.latency.median / pruned.latency.median:.2f}x", times)
    return [*costs, speed, _quality_figure(report)]


def _quality_figure(report: Figures) -> KeyFigure:
    """Return the change of the first measure of quality that the report has."""
    label, dense, pruned, change = report_rows(report)[0]
    number = change.removesuffix(" points")
    value, _, half_width = number.partition(" ± ")
    note = f"± {half_width}, from {dense} to {pruned}" if half_width else f"from {dense} to {pruned}"
    return KeyFigure(f"Change of {label}", f"{value} points" if change.endswith("points") else value, note)


def _next_bound(report: Figures) -> str:
    """Return a bound to pick a network of a curve by, on a measure that this report has."""
    bounds = {"accuracy": "accuracy=-0.01", "agreement": "agreement=-0.02"}
    return next((bound for name, bound in bounds.items() if getattr(report.dense, name) is not None), "loss=0.05")


def _repair_rows(report: Figures) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each repair: its name, the divergences around it, and its outcome."""
    return [
        (
            step["name"],
            *(divergence_text(step[name]) for name in ("before", "after", "fitted")),
            ": ".join(text for text in ("kept" if step["kept"] else "left out", step.get("training", "")) if text),
        )
        for step in report.settings["repairs"]
    ]
