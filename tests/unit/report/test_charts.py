"""Charts of pages: what is drawn is what was measured, and pages of large networks stay small."""

import itertools
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import secateur as sc
from exact_scores import exact_scores
from secateur.importance.scores import GroupScores, Scores
from secateur.report.chart_scale import Scale, round_values
from secateur.report.group_charts import BOTTOM, LEFT, TOP, WIDTH, bars_by_kind, score_charts
from secateur.report.line_chart import LEFT as CHART_LEFT
from secateur.report.line_chart import RIGHT as CHART_RIGHT
from secateur.report.line_chart import Curve, CurvePoint, line_chart, line_style
from secateur.report.pages import short_count
from secateur.report.report import Report
from secateur.report.report_page import report_page


@pytest.fixture(scope="module")
def report() -> Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return sc.prune(model, torch.randn(64, 6), {"macs": 0.5}, by="l1", repair=None, progress=False).report


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 0.0), (0.031, 0.0312), (5.0, 5.0), (-1e-9, 7e8)])
def test_round_values_enclose_what_they_are_for(low: float, high: float) -> None:
    values = round_values(low, high)
    slack = 1e-8 * (values[-1] - values[0])
    assert values[0] - slack <= low <= high <= values[-1] + slack and 2 <= len(values) <= 7
    steps = [second - first for first, second in itertools.pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps)) and steps[0] > 0


def test_each_kind_of_units_has_a_scale_of_bars() -> None:
    groups = {"conv1": (64, 32), "conv2": (32, 32), "attention": (4, 1)}
    channels, heads = bars_by_kind(groups, {"conv1": "channels", "conv2": "channels", "attention": "heads"})
    assert [(bar.dense_width, bar.kept_width) for bar in channels.bars] == [(100, 50), (50, 50)]
    assert [(bar.dense_width, bar.kept_width) for bar in heads.bars] == [(100, 25)]
    assert (channels.size, channels.kept, channels.most, heads.most) == (96, 64, 64, 4)
    assert [kind.kind for kind in bars_by_kind(groups, {})] == ["units"]
    assert [kind.noun for kind in bars_by_kind({"a": (2, 1)}, {"a": "residual"})] == ["units"]


def heights(path: str) -> list[float]:
    """Return the heights of the columns of an outline, in positions."""
    return [float(top) for top in re.findall(r"V([\d.]+)H", path)]


def test_removed_units_stand_before_kept_ones() -> None:
    [chart] = score_charts(exact_scores({"a": [4.0, 1.0, 3.0, 2.0]}), {"a": (4, 2)}, {"a": torch.tensor([0, 1])})
    scale = Scale(0, 4, BOTTOM, TOP)
    assert heights(chart.removed_path) == [scale.position(2), scale.position(3)]
    assert heights(chart.kept_path) == [scale.position(1), scale.position(4)]
    assert chart.boundary == LEFT + (WIDTH - LEFT) / 2
    assert f"H{chart.boundary:g}V" in chart.removed_path and not chart.error_path
    [by_rank] = score_charts(exact_scores({"a": [4.0, 1.0, 3.0, 2.0]}), {"a": (4, 2)}, {})
    assert heights(by_rank.kept_path) == [scale.position(3), scale.position(4)]


def test_negative_scores_hang_from_zero_and_errors_are_drawn() -> None:
    group = GroupScores(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 1.0]))
    [chart] = score_charts(Scores({"a": group}, "shapley", 0, {}, ""), {"a": (2, 2)}, {})
    scale = Scale(-1.5, 2, BOTTOM, TOP)
    assert heights(chart.kept_path) == [scale.position(-1), scale.position(1)] and not chart.removed_path
    assert chart.zero == scale.position(0) and (chart.lowest, chart.highest) == ("-1.5", "2")
    assert chart.error_path.count("M") == 2


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [1.0, 2.0, 3.0]])
def test_scores_that_can_not_be_drawn_are_left_out(values: list[float]) -> None:
    assert score_charts(exact_scores({"a": values}), {"a": (2, 1)}, {}) == []


def test_scores_that_are_all_equal_are_drawn() -> None:
    [chart] = score_charts(exact_scores({"a": [0.0, 0.0]}), {"a": (2, 1)}, {})
    assert heights(chart.kept_path) == [BOTTOM]


def test_points_of_a_chart_lie_within_it() -> None:
    points = [CurvePoint(0.5, 3.0, 1.0, "a"), CurvePoint(1.2, math.nan, 1.0, "b"), CurvePoint(1.0, 2.0, math.inf, "c")]
    chart = line_chart("title", "x", "y", [Curve("line", points)], dense=1.0)
    placed = chart.lines[0].points
    assert [point.text for point in placed] == ["a", "c"] and placed[1].low is None
    assert all(CHART_LEFT <= point.x <= CHART_RIGHT for point in placed)
    assert placed[0].high < placed[0].y < placed[0].low <= chart.dense <= chart.bottom  # type: ignore[operator]
    assert chart.x_ticks[0].text == "0 %"


def test_lines_differ_by_more_than_their_hue() -> None:
    styles = [line_style("", index) for index in range(12)]
    assert len({(style.dash, style.shape, style.solid) for style in styles}) == 12


def test_short_counts_have_a_unit() -> None:
    assert [short_count(count) for count in (0, 999, 1000, 999_600, 2.5e12)] == ["0", "999", "1 k", "1 M", "2.5 T"]


def test_the_page_of_a_large_transformer_is_small(report: Report) -> None:
    draws = torch.Generator().manual_seed(0)
    names = [f"model.layers.{layer}.{module}" for layer in range(50) for module in ("q", "mlp.gate", "mlp.up", "norm")]
    scores = {name: GroupScores(*torch.rand(2, 1500, generator=draws).double()) for name in names}
    large = replace(
        report,
        groups=dict.fromkeys(names, (1500, 700)),
        kinds=dict.fromkeys(names, "neurons"),
        scores=Scores(scores, "shapley", 0, {}, ""),
        kept={},
    )
    page = large.to_html()
    assert page.count('role="img"') == 200
    assert len(page.encode()) < 500_000


def test_kinds_of_groups_are_saved(report: Report) -> None:
    assert report.kinds == {"0": "neurons"} and report.kept["0"].tolist()
    assert report.to_dict()["groups"]["0"] == {"units": 16, "kept": 8, "kind": "neurons"}


def test_the_advice_of_a_page_is_in_the_budget_and_the_measures_of_its_report(report: Report) -> None:
    page = report_page(report, None, {})
    assert 'sc.tradeoff(model, data, {"macs": (0.9' in page and "curve.pick(agreement=-0.02)" in page
    without_classes = replace(report, dense=replace(report.dense, agreement=None), keep={"params": 0.5})
    page = report_page(without_classes, None, {})
    assert '{"params": (0.9' in page and "curve.pick(loss=0.05)" in page
    labelled = replace(report, dense=replace(report.dense, accuracy=0.9))
    assert "curve.pick(accuracy=-0.01)" in report_page(labelled, None, {})


def test_the_numbers_of_a_score_chart_fit_beside_it() -> None:
    [chart] = score_charts(exact_scores({"a": [-0.00049, 0.00051]}), {"a": (2, 1)}, {})
    digit = 7.2  # the width of a digit at 12 pixels in a wide font
    assert max(len(chart.lowest), len(chart.highest)) * digit <= chart.start - 4
