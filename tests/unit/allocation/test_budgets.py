"""Budgets in the user's words: fractions, absolute numbers, times."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.allocation.budget import parse_keep
from secateur.allocation.latency_bounds import CLOSE
from secateur.allocation.remaining_fractions import fractions_of, latency_fraction
from secateur.cli.parsing import parse_keep_text as parse_entries
from secateur.errors import BudgetError
from secateur.evaluation.latency_table import LatencyTable, LayerLatency
from secateur.evaluation.timing import Stopwatch


@pytest.mark.parametrize(
    ("unit", "value", "number"),
    [
        ("macs", "300M", 3e8),
        ("macs", 300_000_000, 3e8),
        ("macs", 3e8, 3e8),
        ("params", "2M", 2e6),
        ("params", "1.5k", 1500.0),
        ("params", "1,234", 1234.0),
        ("bytes", "1MB", 1e6),
        ("bytes", "1 MiB", 2.0**20),
        ("bytes", "2_000", 2000.0),
        ("units", 40, 40.0),
        ("units", "50%", 0.5),
        ("macs", "0.5", 0.5),
        ("macs", "5e-1", 0.5),
        ("latency", "50%", 0.5),
        ("speedup", "2x", 2.0),
        ("speedup", 1, 1.0),
        ("ms", "5ms", 5.0),
        ("ms", 0.25, 0.25),
    ],
)
def test_numbers_and_texts(unit: str, value: Any, number: float) -> None:
    assert parse_keep({unit: value}) == {unit: pytest.approx(number)}
    assert parse_entries([f"{unit}={value}"]) == {unit: pytest.approx(number)}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"macs": 50}, "out of range; give the fraction that is kept, above 0 and at most 1, or an absolute number"),
        ({"macs": 1234.5}, "out of range"),
        ({"macs": "300Q"}, "followed by one of k, m, g, t, %"),
        ({"params": "1MB"}, "is no number"),
        ({"speedup": 0.5}, "how many times as fast"),
        ({"speedup": "50%"}, "is no number"),
        ({"ms": 0}, "milliseconds for a batch"),
        ({"latency": 2}, "fraction of the dense network's time"),
        ({"units": 1.5}, "the number of units"),
        ({"macs": True}, "is no number"),
        ({"latency": 0.5, "speedup": 2}, "gives the time twice"),
        ({"macs": "-5k"}, "is no number"),
    ],
)
def test_budgets_out_of_range(keep: Any, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        parse_keep(keep)


def test_absolute_numbers_are_met_and_named() -> None:
    model, x = linear_stack(64, 96, 96, 10), torch.randn(8, 64)
    network = sc.trace(model, x)
    scores = sc.score(network, by="l2")
    for unit, text in (("params", "8k"), ("macs", "8K"), ("bytes", "40 kB")):
        plan = sc.plan(network, scores, keep={unit: text})
        limit = parse_keep({unit: text})[unit]
        assert 0.95 * limit <= getattr(plan.cost, unit) <= limit
        assert plan.keep == {unit: limit}
    assert sc.plan(network, scores, keep={"macs": "1G"}).cost == network.cost()
    assert sum(map(len, sc.plan(network, scores, keep={"units": 100}).kept.values())) == 100
    with pytest.raises(BudgetError, match=r"smallest reachable is macs 0.0\d+ \(macs \d+\)"):
        sc.plan(network, scores, keep={"macs": 101}, floor=8)


@untrained_networks
def test_absolute_budgets_by_prune(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    model, x = linear_stack(64, 96, 96, 10), torch.randn(40, 64)
    result = sc.prune(model, x, {"macs": "9k"}, by="l2", repair=None, progress=False)
    assert result.plan.cost.macs <= 9000
    assert "kept macs 9,000, " in str(result.report)
    result.save(tmp_path)
    assert "kept macs 9,000, " in (tmp_path / "report.txt").read_text()
    rounds = sc.prune(model, x, {"macs": 9000}, by="l2", rounds=2, repair=None, progress=False)
    assert rounds.plan.cost.macs <= 9000

    model, x = linear_stack(512, 2048, 2048, 10), torch.randn(64, 512)

    def parameters_left(small: torch.nn.Module) -> float:
        """Parameters stand for time: other work on the machine must not decide what a test says."""
        return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())

    monkeypatch.setattr(Stopwatch, "time_ratio", lambda _, small: parameters_left(small))
    monkeypatch.setattr(Stopwatch, "dense_ms", lambda _: [10.0])
    for keep in ({"speedup": 2}, {"ms": 5}):
        result = sc.prune(model, x, keep, by="l2", repair=None, progress=False)
        assert parameters_left(result.model) <= 0.5 * CLOSE
        assert result.plan.keep == keep


def test_fractions_of_absolute_numbers_and_times() -> None:
    network = sc.trace(linear_stack(4, 8, 2), torch.randn(2, 4))
    assert fractions_of(network, {"macs": 24.0, "params": 1e9}) == {"macs": 0.5, "params": 1.0}
    assert latency_fraction({"speedup": 4.0}, 8.0) == 0.25
    assert latency_fraction({"ms": 2.0}, 8.0) == 0.25
    assert latency_fraction({"ms": 20.0}, 8.0) == 1.0
    assert latency_fraction({"macs": 0.5}, 8.0) is None


@pytest.mark.parametrize(
    ("keep", "reachable"),
    [
        ({"speedup": 100.0}, r"speedup (?P<value>[\d.]+) with"),
        ({"ms": 1e-3}, r"ms (?P<value>[\d.]+) with"),
        ({"latency": 0.01}, r"latency (?P<value>[\d.]+) with"),
        ({"macs": 1e-4, "speedup": 100.0}, r"macs [\d.]+, speedup (?P<value>[\d.]+) \(macs \d+\) with"),
    ],
)
def test_a_time_that_can_not_be_reached_is_answered_in_its_own_unit(keep: dict[str, float], reachable: str) -> None:
    """Half of the time is that of an operator beside the layers, which takes 4 of 8 ms whatever is removed."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    network = sc.trace(model, torch.randn(2, 4))
    units, outputs = torch.arange(8), torch.tensor([-1, -1])
    seconds = torch.tensor([[0.0, 2e-3]], dtype=torch.float64)
    layers = (
        LayerLatency(torch.full((4,), -1), units, seconds, 0.0, (4,), (0, 8)),
        LayerLatency(units, outputs, seconds.T, 0.0, (0, 8), (2,)),
    )
    table = LatencyTable(layers, 4e-3)
    with pytest.raises(BudgetError, match=reachable) as failure:
        sc.plan(network, sc.score(network, by="l2"), keep, latency=table)
    value = float(re.search(reachable, str(failure.value))["value"])  # type: ignore[index]
    expected = {"speedup": 8 / 4.5, "ms": 4.5, "latency": 4.5 / 8}[[*keep][-1]]
    assert value == pytest.approx(expected, rel=0.01)
