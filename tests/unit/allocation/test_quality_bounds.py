"""Bounds on the loss and the accuracy: the smallest network within them."""

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur import demo
from secateur.allocation import quality_bounds
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.metric_change import MetricChange
from secateur.evaluation.divergence import divergence
from simulated_plans import simulator_of

pytestmark = untrained_networks


def test_the_smallest_network_within_a_bound_on_the_accuracy() -> None:
    result = sc.prune(
        demo.network(), demo.test()[:4], {"accuracy": -0.02}, holdout=0, by="l2", repair="refit", progress=False
    )
    check_bound(result, "accuracy", examples=32)
    assert result.report.settings["drop"]["mean"] >= -0.02


def test_the_smallest_network_within_a_bound_on_the_loss() -> None:
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    result = sc.prune(linear_stack(6, 32, 32, 3), x, {"loss": 0.0001}, holdout=0, progress=False)
    check_bound(result, "loss", examples=100)
    assert 0 < result.report.settings["drop"]["mean"] <= 0.0001


@pytest.mark.parametrize("limit", [-0.2, -0.4, -0.6])
def test_the_search_ends_with_the_smallest_plan_within_the_bound(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy decreases by the fraction of the MACs that is removed."""

    def known_change(simulator: PlanSimulator, plan: sc.Plan, unit: str, limit: float, *_: object) -> MetricChange:
        mean = plan.cost.macs / plan.dense.macs - 1
        return MetricChange(unit, limit, mean, mean, mean, 100)

    monkeypatch.setattr(quality_bounds, "measure_change", known_change)
    model, x = linear_stack(6, 64, 64, 3), torch.randn(40, 6)
    result = sc.prune(model, x, {"accuracy": limit}, by="l2", target="any", repair=None, holdout=0, progress=False)
    kept = result.plan.cost.macs / result.plan.dense.macs
    assert 1 + limit <= kept < 1.08 * (1 + limit)


def check_bound(result: sc.Result, unit: str, examples: int) -> None:
    """Check what the report says of a bound, and that units were removed."""
    drop = result.report.settings["drop"]
    assert drop["unit"] == unit
    assert drop["low"] <= drop["mean"] <= drop["high"]
    assert drop["examples"] == examples
    assert result.plan.cost.macs < 0.9 * result.plan.dense.macs
    assert "95 % interval" in str(result.report)


def test_invalid_bounds_are_refused() -> None:
    x = torch.randn(40, 6)
    for keep in ({"loss": -0.1}, {"accuracy": 0.1}, {"loss": 0.1, "macs": 0.5}, {"loss": True}):
        with pytest.raises(sc.SecateurError, match="is not a bound"):
            sc.prune(linear_stack(6, 8, 3), x, keep, progress=False)
    network = sc.trace(linear_stack(6, 8, 3), x)
    with pytest.raises(sc.SecateurError, match=r"is a bound on the loss, which is measured on examples: give data="):
        sc.plan(network, sc.score(network, by="l2"), {"loss": 0.1})
    with pytest.raises(sc.SecateurError, match=r"needs this machine's times: give data="):
        sc.plan(network, sc.score(network, by="l2"), {"latency": 0.5})


def test_without_a_refit_a_bound_is_judged_without_one() -> None:
    model, x = linear_stack(6, 32, 32, 3), torch.randn(400, 6)
    result = sc.prune(model, x, {"loss": 0.02}, repair=None, holdout=0, progress=False)
    held_out = torch.cat([microbatch.args[0] for microbatch in simulator_of(model, x).held_out.microbatches])
    with torch.no_grad():
        distance = float(divergence(result.model(held_out), model(held_out)).mean())
    assert result.report.settings["drop"]["mean"] == pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize("target", ["any", "avx2", "avx512"])
def test_an_accuracy_bound_on_images_of_classes(target: str) -> None:
    """Classes lie along the second axis; what is labelled -100 does not count.

    The largest sizes that fill steps of 8 channels lose too much, and any sizes do not.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))
    x = torch.randn(40, 3, 8, 8)
    labels = model(x).argmax(1)
    labels[:, :2] = -100
    data = list(zip(x.split(8), labels.split(8), strict=True))
    result = sc.prune(model, data, {"accuracy": -0.2}, target=target, progress=False)
    assert -0.2 <= result.report.settings["drop"]["mean"] <= 0
    assert result.plan.cost.macs < result.plan.dense.macs
