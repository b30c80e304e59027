"""Curves of the loss: measured group by group, on as many examples as their cost allows."""

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import PruneConfig
from secateur.allocation.loss_curves import interpolate_curve
from secateur.allocation.measured_curves import measured_curves
from secateur.allocation.simulate import PlanSimulator
from simulated_plans import simulator_of

pytestmark = untrained_networks


def test_a_curve_goes_through_what_was_measured_and_never_falls() -> None:
    curve = interpolate_curve({2: 0.1, 4: 0.05, 7: 1.0}, 8)
    assert [float(curve[at]) for at in (0, 2, 4, 7, 8)] == pytest.approx([0, 0.1, 0.1, 1.0, 4.0])
    assert bool((curve.diff() >= -1e-12).all())


def test_measured_curves_are_simulations_of_one_group_at_a_time() -> None:
    x = torch.randn(800, 6)
    simulator = simulator_of(linear_stack(6, 16, 16, 3), x)
    scores = sc.score(simulator.network, by="l2")
    curves = measured_curves(simulator, scores)
    order = scores["2"].values.argsort(stable=True)
    again = simulator_of(linear_stack(6, 16, 16, 3), x)
    measured = again.divergence({"2": order[8:].sort().values}, again.consumers("2"))
    assert float(curves["2"][8]) == pytest.approx(measured, rel=1e-5)


def test_the_time_of_curves_is_foreseen_from_those_that_were_measured() -> None:
    """Curves of some groups are of no use, so that measuring them all must fit before most of them are measured."""
    simulator = simulator_of(linear_stack(6, *[8] * 8, 3), torch.randn(40, 6))
    scores, asked = sc.score(simulator.network, by="l2"), list[float]()

    def is_time_up(ratio: float) -> bool:
        asked.append(ratio)
        return limit is not None and ratio > limit

    limit: float | None = None
    assert measured_curves(simulator, scores, is_time_up) is not None
    foreseen = [ratio for ratio in asked if ratio > 0]
    assert len(asked) == 8 and asked[0] == 0 and len(foreseen) >= 6
    assert foreseen == sorted(foreseen, reverse=True) and 1 < foreseen[0] < 3 and foreseen[-1] < 0.2
    asked.clear()
    limit = 1.0
    assert measured_curves(simulator, scores, is_time_up) is None
    assert asked[-1] == max(asked) > limit  # nothing more was measured


def test_curves_that_were_measured_before_change_no_simulation() -> None:
    x = torch.randn(160, 6)
    plan_for = {"0": torch.arange(6), "2": torch.arange(9)}
    fresh, used = (simulator_of(linear_stack(6, 16, 16, 3), x) for _ in range(2))
    measured_curves(used, sc.score(used.network, by="l2"))
    assert used.divergence(plan_for) == pytest.approx(fresh.divergence(plan_for), rel=1e-5)


def test_large_networks_are_measured_on_a_part_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulator_of(linear_stack(6, 16, 16, 3), torch.randn(800, 6))
    scores, macs = sc.score(whole.network, by="l2"), whole.network.cost().macs
    expected = measured_curves(whole.quick_held_out(100), scores)
    assert expected is not None
    for examples, curves in ((100, expected), (10, None)):
        monkeypatch.setattr("secateur.allocation.candidates.MOST_WORK", examples * macs * len(scores))
        measured = [way.curves for way in candidate_allocations(whole, scores, PruneConfig()) if way.curves is not None]
        assert bool(measured) == (curves is not None)
        assert curves is None or all(torch.equal(measured[0][name], curves[name]) for name in curves)
    assert sum(microbatch.size or 1 for microbatch in whole.quick_held_out(100).held_out.microbatches) < 50


@pytest.mark.parametrize(("hidden", "examples"), [(2, 128), (16, 100), (48, 64)])
def test_the_more_groups_the_fewer_examples_measure_curves(
    hidden: int, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that curves take no more than so many passes of all examples, as long as some dozens remain."""
    whole = simulator_of(linear_stack(6, *[8] * hidden, 3), torch.randn(200, 6))
    measured_on = list[int]()
    monkeypatch.setattr(PlanSimulator, "quick_held_out", lambda self, most: measured_on.append(most) or self)
    monkeypatch.setattr("secateur.allocation.candidates.measured_curves", lambda *_: {})
    candidate_allocations(whole, sc.score(whole.network, by="l2"), PruneConfig())
    assert measured_on == [examples]
