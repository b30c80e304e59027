"""Trade-off curves: one scoring, networks at several budgets, what was measured, and what is picked."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.evaluation.changes import Change
from secateur.tradeoff_curve.curve import Tradeoff

pytestmark = untrained_networks


def data(examples: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draws = torch.Generator().manual_seed(1)
    inputs = torch.randn(examples, 6, generator=draws)
    with torch.no_grad():
        return [(inputs, linear_stack(6, 32, 24, 3)(inputs).argmax(1))]


@pytest.fixture(scope="module")
def curve() -> Tradeoff:
    return sc.tradeoff(linear_stack(6, 32, 24, 3), data(96), {"macs": (0.3, 0.8, 0.5)}, progress=False)


def test_networks_keep_their_budgets_and_nested_units(curve: Tradeoff) -> None:
    fractions = [point.fraction("macs") for point in curve.points]
    assert fractions == sorted(fractions, reverse=True)
    for point, limit in zip(curve.points, (0.8, 0.5, 0.3), strict=True):
        assert point.fraction("macs") <= limit
        assert sum(p.numel() for p in point.result.model.parameters()) == point.result.plan.cost.params
    for name in curve.points[0].result.plan.kept:
        kept = sorted((set(point.result.plan.kept[name].tolist()) for point in curve.points), key=len)
        assert all(small <= large for small, large in itertools.pairwise(kept))


def test_changes_are_those_of_the_examples_that_were_held_out(curve: Tradeoff) -> None:
    assert curve.examples == 24
    test = data(500)
    judged = sc.tradeoff(linear_stack(6, 32, 24, 3), data(96), {"macs": (0.5, 0.3)}, test=test, progress=False)
    assert judged.examples == 500
    inputs, labels = test[0]
    for point in judged.points:
        with torch.no_grad():
            hits = (point.result.model(inputs).argmax(1) == labels).double()
        change = point.changes["accuracy"]
        assert change.mean == pytest.approx(float(hits.mean()) - 1)  # the labels are the dense network's classes
        assert change == Change.of(hits - 1)


def test_the_smallest_network_within_bounds_is_picked(curve: Tradeoff) -> None:
    assert curve.pick(accuracy=-1) is curve.points[-1].result
    assert curve.pick(macs=0.85, loss=math.inf) is curve.points[-1].result
    allowed = curve.points[1].changes["loss"].mean
    picked = curve.pick(loss=allowed)
    assert picked.plan.cost.macs <= curve.points[1].result.plan.cost.macs


def test_what_can_not_be_picked_is_an_error(curve: Tradeoff) -> None:
    with pytest.raises(sc.SecateurError, match="no network of this curve is within"):
        curve.pick(macs=0.01)
    for bounds in ({"colour": 1}, {}, {"accuracy": "a point"}):
        with pytest.raises(sc.SecateurError, match="takes numbers as bounds on"):
            curve.pick(**bounds)  # type: ignore[arg-type]


def test_points_are_in_the_order_of_their_macs_whatever_the_budgets_count() -> None:
    mixed = sc.tradeoff(linear_stack(6, 32, 24, 3), data(48), {"params": ("400", 0.9), "macs": 0.6}, progress=False)
    macs = [point.result.plan.cost.macs for point in mixed.points]
    assert macs == sorted(macs, reverse=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "gpuu"}, "target='gpuu' is unknown"),
        ({"floor": 0.9, "keep": {"macs": 0.2}}, "smallest reachable"),
        ({"round_to": 16, "keep": {"macs": 0.05}}, "smallest reachable"),
        ({"repair": "refitt"}, "did you mean 'refit'"),
        ({"by": "l2", "coalitions": 5}, "does not apply"),
    ],
)
def test_settings_are_refused_before_anything_is_scored(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was scored")

    monkeypatch.setattr("secateur.tradeoff_curve.run.score", never)
    with pytest.raises(sc.SecateurError, match=message):
        sc.tradeoff(linear_stack(6, 32, 24, 3), data(32), progress=False, **settings)


@pytest.mark.parametrize("keep", [{}, {"macs": ()}, {"latency": 0.5}, {"macs": (0.5, 2)}])
def test_budgets_that_can_not_be_met_are_refused(keep: dict[str, object]) -> None:
    with pytest.raises(sc.SecateurError):
        sc.tradeoff(linear_stack(6, 32, 24, 3), data(32), keep, progress=False)  # type: ignore[arg-type]


def test_a_curve_is_shown_and_saved(curve: Tradeoff, tmp_path: Path) -> None:
    assert "changes on 24 examples" in str(curve)
    curve.save(tmp_path)
    page = (tmp_path / "tradeoff.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<title>macs 0.8: ", page)) == 2
    assert re.findall(r'(?:src|href)="([^"]*)', page) == ["data:,"]
    points = json.loads((tmp_path / "tradeoff.json").read_text(encoding="utf-8"))["points"]
    assert [point["macs"] for point in points] == [0.8, 0.5, 0.3]
    axes = curve.plot(size="latency")
    assert axes.get_xlabel() == "remaining fraction, latency"
