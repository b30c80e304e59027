"""Budgets in time: the latency table, and plans that are replaced until their time is met."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.allocation.latency_bounds import CLOSE
from secateur.data.conversion import as_batches
from secateur.evaluation.latency_table import LatencyTable, LayerLatency
from secateur.evaluation.measured_latency import measure_latency
from secateur.evaluation.timing import Stopwatch
from simulated_plans import weights_as_times

pytestmark = untrained_networks


def test_a_latency_table_between_its_sizes() -> None:
    units = torch.arange(8)
    seconds = torch.tensor([[1.0, 2, 4], [2, 4, 8], [4, 8, 16]], dtype=torch.float64)
    table = LatencyTable((LayerLatency(torch.full((8,), -1), units, seconds, 4.0, (2, 4, 8), (2, 4, 8)),), 2.0)
    mask = torch.ones(9, dtype=torch.bool)
    assert table.fraction(mask) == 1.0
    mask[:4] = False
    assert table.fraction(mask) == pytest.approx((8 + 2 + 2) / 22)
    mask[:6] = False
    assert table.fraction(mask) == pytest.approx((4 + 1 + 2) / 22)
    mask[:7] = False
    assert table.fraction(mask) == pytest.approx((2 + 0.5 + 2) / 22)


def test_latency_is_measured_for_every_kind_of_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1),
        nn.Conv2d(12, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16, 5),
    ).eval()  # fmt: skip
    network = sc.trace(model, torch.randn(2, 3, 10, 10))
    table = measure_latency(network, as_batches(torch.randn(4, 3, 10, 10))[0])
    kept = {group.name: torch.arange(max(group.size // 2, 1)) for group in network.groups}
    assert table.fraction(network.mask({})) == 1.0
    assert 0 < table.fraction(network.mask(kept)) < 1.5
    assert len(table.layers) == 5


def test_a_budget_in_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = linear_stack(512, 2048, 2048, 10), torch.randn(64, 512)
    network = sc.trace(model, x[:2])
    table = measure_latency(network, as_batches(x)[0])
    plan = sc.plan(network, sc.score(network, by="l2"), {"latency": 0.6}, latency=table)
    assert table.fraction(network.mask(plan.kept)) <= 0.6
    assert plan.cost.macs < 0.9 * plan.dense.macs
    timed = []

    def time_ratio(_: Any, small: nn.Module) -> float:
        """Parameters stand for time: other work on the machine must not decide what a test says."""
        timed.append(sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters()))
        return timed[-1]

    monkeypatch.setattr(Stopwatch, "time_ratio", time_ratio)
    result = sc.prune(model, x, {"latency": 0.7}, by="l2", progress=False)
    assert timed
    kept = sum(p.numel() for p in result.model.parameters()) / sum(p.numel() for p in model.parameters())
    assert kept <= 0.7 * CLOSE
    assert all(len(kept) % 8 == 0 for kept in result.plan.kept.values())
    assert result.plan.keep == {"latency": 0.7}


def test_a_plan_that_is_faster_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stopwatch, "time_ratio", lambda *_: 0.5)
    result = sc.prune(linear_stack(64, 256, 256, 5), torch.randn(40, 64), {"latency": 0.9}, by="l2", progress=False)
    assert result.plan.cost.macs <= result.plan.dense.macs


def test_a_budget_of_time_is_met_between_what_is_too_slow_and_what_the_table_can_not_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but 32 neurons take half of the time: .7 is too slow when it is timed, .5 is out of reach, .59 will do."""
    seconds = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    table = LatencyTable((LayerLatency(torch.full((6,), -1), torch.arange(32), seconds, 0.0, (6,), (16, 32)),), 1.0)
    monkeypatch.setattr("secateur.allocation.latency_bounds.measure_latency", lambda *_: table)
    timed = iter([0.98, 0.69])
    monkeypatch.setattr(Stopwatch, "time_ratio", lambda *_: next(timed))
    options: dict[str, Any] = {"by": "l2", "target": "any", "kinds": "neurons", "repair": None, "progress": False}
    result = sc.prune(linear_stack(6, 32, 3), torch.randn(40, 6), {"latency": 0.7}, **options)
    assert [len(kept) for kept in result.plan.kept.values()] == [5]  # (1 + 5 / 32) / 2 <= sqrt(.5 * .7)
    with pytest.raises(sc.SecateurError, match=r"the smallest reachable is latency 0.51"):
        sc.prune(linear_stack(6, 32, 3), torch.randn(40, 6), {"latency": 0.4}, **options)


def test_a_budget_in_time_without_the_model_goes_by_the_layers_times() -> None:
    model, x = linear_stack(64, 256, 256, 5), torch.randn(40, 64)
    network = sc.trace(model, x[:2])
    scores = sc.score(network, by="l2")
    table = weights_as_times(network)
    plan = sc.plan(network, scores, {"speedup": 2}, data=x, latency=table, progress=False)
    assert table.fraction(network.mask(plan.kept)) <= 0.5
    assert plan.keep == {"speedup": 2}
    assert any("give model= to have the plan cut and timed" in note for note in plan.notes)
