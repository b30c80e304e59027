"""The numbers of units that groups lose: curves, orders, simulations, bounds, latency and rounds."""

import inspect
import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur import demo
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import COMPARISON, DEFAULTS, PruneConfig
from secateur.allocation.latency_bounds import CLOSE
from secateur.allocation.loss_curves import interpolate_curve
from secateur.allocation.loss_order import REFRESHES, hull_slopes, loss_aware
from secateur.allocation.measured_curves import measured_curves
from secateur.allocation.remaining_fractions import fractions
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.strategies import OrderContext, halfway_order
from secateur.allocation.tied_groups import tie_groups
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.divergence import divergence
from secateur.evaluation.latency_table import LatencyTable, LayerLatency
from secateur.evaluation.measured_latency import measure_latency
from secateur.evaluation.timing import Stopwatch
from secateur.importance.context import split_microbatches
from secateur.importance.scores import GroupScores, Scores
from secateur.masking.linear_layers import layers_of
from secateur.pruning.rounds import merge_scores
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.surgery.recipe import recipe_of
from secateur.utils.time_budget import TimeBudget

pytestmark = untrained_networks


def rehearsal_of(model: nn.Module, x: Any) -> PlanSimulator:
    batches = as_batches(x)
    network = sc.trace(model, batches[0].args[0][:2])
    return PlanSimulator(Calibration(network, split_microbatches(batches, torch.device("cpu"))))


def test_units_go_where_the_loss_grows_least_for_what_is_saved() -> None:
    """Of two alike groups with convex curves the best split by enumeration."""
    model = linear_stack(6, 12, 12, 3)
    network = sc.trace(model, torch.randn(2, 6))
    curves = {"0": torch.arange(13).double().square(), "2": 3 * torch.arange(13).double().square()}
    scores = sc.score(network, by="l2")
    plan = sc.plan(network, scores, {"units": 0.5}, allocation="loss", curves=curves)
    lost = {name: network[name].size - len(kept) for name, kept in plan.kept.items()}
    best = min(range(13), key=lambda a: float(curves["0"][a] + curves["2"][12 - a]))
    assert lost == {"0": best, "2": 12 - best}


@pytest.mark.parametrize("units", [("macs",), ("params", "units"), ("bytes", "latency")])
def test_the_order_by_the_loss_is_that_of_costs_taken_from_masks(units: tuple[str, ...]) -> None:
    """The same rule, in which every saving is worked out from the masks of two whole plans."""
    model = linear_stack(6, 40, 30, 20, 3)
    network = sc.trace(model, torch.randn(2, 6))
    groups, draws = network.groups, torch.Generator().manual_seed(0)
    curves = {group.name: torch.rand(group.size + 1, generator=draws).double().cumsum(0) for group in groups}
    table = measure_latency(network, as_batches(torch.randn(2, 6))[0]) if "latency" in units else None
    context = OrderContext(network, groups, units, curves, table)
    values = [torch.rand(group.size, generator=draws) for group in groups]
    slopes = [hull_slopes(curves[group.name].numpy()) for group in groups]

    def remaining_cost(gone: np.ndarray) -> float:
        kept = {g.name: torch.arange(max(g.size - int(n), 0)) for g, n in zip(groups, gone, strict=True)}
        return sum(fractions(network, kept, network.cost(kept), units, table).values())

    gone, expected = np.zeros(len(groups), int), list[int]()
    total = sum(group.size for group in groups)
    for step in range(total):
        if step % (total // REFRESHES) == 0:
            saved = [
                max(remaining_cost(gone) - remaining_cost(gone + one), 1e-12) for one in np.eye(len(groups), dtype=int)
            ]
        growth = [slopes[at][gone[at]] if gone[at] < group.size else np.inf for at, group in enumerate(groups)]
        expected.append(int(np.argmin(np.array(growth) / saved)))
        gone[expected[-1]] += 1
    assert loss_aware(context, values).tolist() == expected


def test_a_cheap_drop_behind_a_dear_one_is_seen() -> None:
    """A curve that is flat after its first step: the whole of it goes at the mean price."""
    model = linear_stack(6, 8, 8, 3)
    network = sc.trace(model, torch.randn(2, 6))
    flat = torch.tensor([0.0, 4, 4, 4, 4, 4, 4, 4, 4])
    curves = {"0": flat.double(), "2": torch.arange(9).double()}
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6}, allocation="loss", curves=curves)
    assert len(plan.kept["0"]) < 3
    assert len(plan.kept["2"]) == 8


def test_half_way_between_two_orders() -> None:
    assert halfway_order([np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])]).tolist() == [0, 0, 1, 1]
    assert sorted(halfway_order([np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])]).tolist()) == [0, 0, 1, 1]
    assert halfway_order([np.array([0, 0, 0, 1]), np.array([0, 1, 0, 0])]).tolist()[0] == 0


def test_scores_that_are_no_losses_need_curves() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    with pytest.raises(sc.SecateurError, match=r"scores by 'l2' don't tell; give curves=, or rank by 'obs'"):
        sc.plan(network, sc.score(network, by="l2"), {"units": 0.5}, allocation="loss")


def test_a_curve_goes_through_what_was_measured_and_never_falls() -> None:
    curve = interpolate_curve({2: 0.1, 4: 0.05, 7: 1.0}, 8)
    assert [float(curve[at]) for at in (0, 2, 4, 7, 8)] == pytest.approx([0, 0.1, 0.1, 1.0, 4.0])
    assert bool((curve.diff() >= -1e-12).all())


def test_measured_curves_are_rehearsals_of_one_group_at_a_time() -> None:
    x = torch.randn(800, 6)
    rehearsal = rehearsal_of(linear_stack(6, 16, 16, 3), x)
    scores = sc.score(rehearsal.network, by="l2")
    curves = measured_curves(rehearsal, scores)
    order = scores["2"].values.argsort(stable=True)
    again = rehearsal_of(linear_stack(6, 16, 16, 3), x)
    measured = again.divergence({"2": order[8:].sort().values}, again.consumers("2"))
    assert float(curves["2"][8]) == pytest.approx(measured, rel=1e-5)


def test_the_time_of_curves_is_foreseen_from_those_that_were_measured() -> None:
    """Curves of some groups are of no use, so that measuring them all must fit before most of them are measured."""
    rehearsal = rehearsal_of(linear_stack(6, *[8] * 8, 3), torch.randn(40, 6))
    scores, asked = sc.score(rehearsal.network, by="l2"), list[float]()

    def is_time_up(ratio: float) -> bool:
        asked.append(ratio)
        return limit is not None and ratio > limit

    limit: float | None = None
    assert measured_curves(rehearsal, scores, is_time_up) is not None
    foreseen = [ratio for ratio in asked if ratio > 0]
    assert len(asked) == 8 and asked[0] == 0 and len(foreseen) >= 6
    assert foreseen == sorted(foreseen, reverse=True) and 1 < foreseen[0] < 3 and foreseen[-1] < 0.2
    asked.clear()
    limit = 1.0
    assert measured_curves(rehearsal, scores, is_time_up) is None
    assert asked[-1] == max(asked) > limit  # nothing more was measured


@pytest.mark.filterwarnings("ignore:left out")
def test_a_last_fit_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refit that takes 6 of 10 seconds on trial would take as long on all examples."""
    seconds = [0.0]

    def slow_refit(*args: Any) -> Any:
        seconds[0] += 6
        return refit(*args)

    monkeypatch.setattr("secateur.pruning.prune.TimeBudget", lambda limit: TimeBudget(limit, lambda: seconds[0]))
    monkeypatch.setattr("secateur.recovery.chain.refit", slow_refit)
    torch.manual_seed(0)
    model, x = linear_stack(6, 16, 16, 3), torch.randn(96, 6)
    for limit, note in ((10, ["the fit to the examples held out"]), (14, [])):
        seconds[0] = 0.0
        result = sc.prune(model, x, {"macs": 0.5}, repair="refit", seconds=limit, progress=False)
        assert result.report.settings["left_out"] == note
        assert seconds[0] == (6 if note else 12)


def test_a_rehearsal_is_what_cutting_and_refitting_comes_to() -> None:
    model, data = demo.network(), demo.calibration()
    rehearsal = rehearsal_of(model, data)
    scores = sc.score(rehearsal.network, by="l2")
    plan = sc.plan(rehearsal.network, scores, {"macs": 0.5})
    small = sc.cut(model, plan)
    fitted = [microbatch.args[0] for microbatch in rehearsal.fitted.microbatches]
    within = EmbeddedPrunedNetwork.of(small, rehearsal.network, recipe_of(model, plan))
    with torch.no_grad():
        refit(PairedExecution(within, split_microbatches(as_batches(fitted), torch.device("cpu"))))
        within.write(small)
        for pair in rehearsal.outputs(plan.kept):
            assert torch.allclose(small(*pair.batch.args), pair.small, atol=2e-2 * float(pair.dense.abs().max()))


@pytest.mark.parametrize("keep", [{"accuracy": -0.05}, {"loss": 0.05}])
def test_the_smallest_network_within_a_bound(keep: dict[str, float]) -> None:
    result = sc.prune(demo.network(), demo.test()[:6], keep, holdout=0, progress=False)
    drop = result.report.settings["drop"]
    assert drop["unit"] == next(iter(keep))
    assert drop["low"] <= drop["mean"] <= drop["high"]
    assert drop["examples"] == 48
    assert drop["mean"] >= -0.05 if "accuracy" in keep else drop["mean"] <= 0.05
    assert result.plan.cost.macs < 0.9 * result.plan.dense.macs
    assert "95 % interval" in str(result.report)


def test_bounds_that_are_none() -> None:
    x = torch.randn(40, 6)
    for keep in ({"loss": -0.1}, {"accuracy": 0.1}, {"loss": 0.1, "macs": 0.5}, {"loss": True}):
        with pytest.raises(sc.SecateurError, match="is not a bound"):
            sc.prune(linear_stack(6, 8, 3), x, keep, progress=False)
    network = sc.trace(linear_stack(6, 8, 3), x)
    with pytest.raises(sc.SecateurError, match=r"is a bound on the loss, which is measured on examples: give data="):
        sc.plan(network, sc.score(network, by="l2"), {"loss": 0.1})
    with pytest.raises(sc.SecateurError, match=r"needs this machine's times: give data="):
        sc.plan(network, sc.score(network, by="l2"), {"latency": 0.5})


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


def test_scores_in_rounds_keep_their_order() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    first = Scores({"0": GroupScores.exact(torch.tensor([3.0, 1, 2, 9, 8, 7, 6, 5]))}, "l2", 0, {}, "")
    first_plan = sc.plan(network, first, {"units": 0.75})
    later = Scores({"0": GroupScores.exact(torch.tensor([5.0, 4, 3, 2, 1, 0]))}, "l2", 0, {}, "")
    order = merge_scores(first, first_plan, later)["0"].values.argsort(stable=True).tolist()
    assert order[:2] == [1, 2]
    assert order[2:] == [7, 6, 5, 4, 3, 0]


def test_pruning_in_rounds() -> None:
    model, x = linear_stack(6, 24, 24, 3), torch.randn(200, 6)
    result = sc.prune(model, x, {"macs": 0.4}, rounds=3, progress=False)
    assert result.plan.cost.macs <= 0.4 * result.plan.dense.macs
    assert "in rounds" in result.scores.note
    for rounds, keep in ((0, {"macs": 0.5}), (2, {"loss": 0.1})):
        with pytest.raises(sc.SecateurError, match=r"rounds="):
            sc.prune(model, x, keep, rounds=rounds, progress=False)


def test_curves_that_were_measured_before_change_no_rehearsal() -> None:
    x = torch.randn(160, 6)
    plan_for = {"0": torch.arange(6), "2": torch.arange(9)}
    fresh, used = (rehearsal_of(linear_stack(6, 16, 16, 3), x) for _ in range(2))
    measured_curves(used, sc.score(used.network, by="l2"))
    assert used.divergence(plan_for) == pytest.approx(fresh.divergence(plan_for), rel=1e-5)


def test_large_networks_are_measured_on_a_part_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rehearsal_of(linear_stack(6, 16, 16, 3), torch.randn(800, 6))
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
    whole = rehearsal_of(linear_stack(6, *[8] * hidden, 3), torch.randn(200, 6))
    measured_on = list[int]()
    monkeypatch.setattr(PlanSimulator, "quick_held_out", lambda self, most: measured_on.append(most) or self)
    monkeypatch.setattr("secateur.allocation.candidates.measured_curves", lambda *_: {})
    candidate_allocations(whole, sc.score(whole.network, by="l2"), PruneConfig())
    assert measured_on == [examples]


def test_quick_rehearsals_take_cells_from_all_over_the_examples() -> None:
    """Examples that are sorted by class: a part of them from one end would know a few classes alone."""
    x = torch.arange(640.0)[:, None].expand(-1, 6).contiguous()
    whole = rehearsal_of(linear_stack(6, 8, 3), list(x.split(32)))
    for quick in (whole.quick(192), whole.quick_held_out(192)):
        microbatches = [*quick.fitted.microbatches, *quick.held_out.microbatches]
        starts = [float(microbatch.args[0][0, 0]) for microbatch in quick.fitted.microbatches]
        assert min(starts) < 160 and max(starts) >= 480
        assert sum(microbatch.size or 1 for microbatch in microbatches) == pytest.approx(192, abs=32)
        assert quick.examples == sum(microbatch.size or 1 for microbatch in microbatches)


@pytest.mark.parametrize("microbatch", [1, 8, 40])
def test_each_half_of_the_examples_judges_what_is_refitted_on_the_other(microbatch: int) -> None:
    """A change of an example changes its own divergence, and those of the other half, but no other of its half."""
    model, x = linear_stack(6, 16, 16, 3), torch.randn(40, 6)
    changed = x.index_add(0, torch.tensor([0]), torch.ones(1, 6))
    kept = {"0": torch.arange(6), "2": torch.arange(9)}
    order, losses = list[int](), list[torch.Tensor]()
    for examples in (x, changed):
        quick = rehearsal_of(model, list(examples.split(microbatch))).quick(64)
        losses.append(quick.divergences(kept))
        judging = torch.cat([batch.args[0] for fold in quick.folds for batch in fold.held_out.microbatches])
        order = [int((examples == row).all(1).nonzero()) for row in judging]
    assert sorted(order) == list(range(40))  # each example judges once
    differs, sizes = (
        losses[0] != losses[1],
        [sum(batch.size or 1 for batch in f.held_out.microbatches) for f in quick.folds],
    )
    halves = list(zip(differs.split(sizes), torch.tensor(order).split(sizes), strict=True))
    assert min(sizes) >= 16
    for differs_of_half, members in halves:
        expected = members == 0 if 0 in members.tolist() else torch.ones(len(members), dtype=torch.bool)
        assert differs_of_half.tolist() == expected.tolist()


def test_examples_that_can_not_be_divided_judge_their_own_refit() -> None:
    quick = rehearsal_of(linear_stack(6, 16, 3), torch.randn(3, 6)).quick(64)
    assert [(fold.fitted, fold.rows_share) for fold in quick.folds] == [(quick.held_out, 1)]


def test_plans_are_told_apart_as_many_other_examples_tell() -> None:
    """With 64 images, of which a third would be held out: what they say of two plans is what 256 others say."""
    model, data = demo.network(), demo.calibration()[:2]
    rehearsal = rehearsal_of(model, data)
    scores = sc.score(rehearsal.network, by="l2")
    early = ("stem.0", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1")
    dear_late = {name: torch.arange(len(scores[name].values) + 1) * (1.0 if name in early else 9.0) for name in scores}
    curves = {name: curve.double() for name, curve in dear_late.items()}
    plans = [
        sc.plan(rehearsal.network, scores, {"macs": 0.3}),
        sc.plan(rehearsal.network, scores, {"macs": 0.3}, allocation="loss", curves=curves),
    ]
    x = torch.cat([images for images, _ in demo.test()[:8]])
    losses = []
    for plan in plans:
        small = sc.repair(sc.cut(model, plan), model, plan, data, "refit", progress=False)
        with torch.no_grad():
            losses.append(float(divergence(small(x), model(x)).mean()))
    quick = rehearsal.quick(64)
    judged = [quick.divergences(plan.kept) for plan in plans]
    assert [len(fold) for fold in judged] == [64, 64]
    assert (judged[0].mean() < judged[1].mean()) == (losses[0] < losses[1])


def test_residual_widths_stay_where_that_comes_nearer() -> None:
    """Ways to allocate are tried with residual widths as they are, and without them where the budget needs them."""
    model, data = demo.network(), demo.calibration()[:1]
    rehearsal = rehearsal_of(model, data)
    network, scores = rehearsal.network, sc.score(rehearsal.network, by="l2")
    config = PruneConfig(floor=0.5)
    tied = tie_groups(network, scores)
    allocator = PlanSearch(rehearsal, tied, config, None, candidate_allocations(rehearsal, scores, config))
    way = next(way for way in allocator.allocations if way.whole)
    residual = [group for group in network.groups if group.kind == "residual"]
    whole = allocator.plan({"macs": 0.7}, way)
    assert residual and all(len(whole.kept[group.name]) == group.size for group in residual)
    assert whole.cost == network.cost(whole.kept) and whole.cost.macs <= 0.7 * whole.dense.macs
    least = allocator.plan({"macs": 0.4}, way)
    assert any(len(least.kept[group.name]) < group.size for group in residual)
    assert least.cost.macs <= 0.4 * least.dense.macs
    sc.cut(model, whole)


@pytest.mark.parametrize(("ticks", "left_out"), [(1e6, ()), (3.0, "all"), (20.0, "some")])
def test_a_time_budget_says_what_was_left_out(
    ticks: float, left_out: str | tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which every look takes a second: the result is whole, whatever time there is."""
    ticking = itertools.count()
    monkeypatch.setattr(
        "secateur.pruning.prune.TimeBudget", lambda seconds: TimeBudget(seconds, lambda: float(next(ticking)))
    )
    torch.manual_seed(0)
    model, x = linear_stack(6, 16, 16, 3), torch.randn(96, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sc.prune(model, x, {"macs": 0.5}, seconds=ticks, progress=False)
    messages = [
        str(warning.message) for warning in caught if "left out, so that it takes no more than" in str(warning.message)
    ]
    noted = result.report.settings["left_out"]
    assert bool(messages) == bool(noted) == bool(left_out)
    assert result.plan.cost.macs <= 0.5 * result.plan.dense.macs
    assert all(note in messages[0] and note in str(result.report) for note in noted)
    repaired = [step["name"] for step in result.report.settings["repairs"]]
    assert repaired == (["refit"] if left_out == "all" else ["refit", "adapt"])
    if left_out == "all":
        starts = [note.lstrip("0123456789 of").split()[0] for note in noted]
        assert starts == ["curves", "simulations", "the", "the", "most"]
        assert "s have passed: some steps are always done" in messages[0]
        assert not result.report.settings["layers"] and result.report.dense.latency.median > 0


def test_without_a_time_budget_nothing_is_left_out() -> None:
    result = sc.prune(linear_stack(6, 16, 3), torch.randn(40, 6), {"macs": 0.5}, progress=False)
    assert result.report.settings["left_out"] == []
    with pytest.raises(sc.SecateurError, match="seconds above 0"):
        sc.prune(linear_stack(6, 16, 3), torch.randn(40, 6), {"macs": 0.5}, seconds=0)


def test_without_a_refit_a_bound_is_judged_without_one() -> None:
    model, x = linear_stack(6, 32, 32, 3), torch.randn(400, 6)
    result = sc.prune(model, x, {"loss": 0.02}, repair=None, holdout=0, progress=False)
    held_out = torch.cat([microbatch.args[0] for microbatch in rehearsal_of(model, x).held_out.microbatches])
    with torch.no_grad():
        distance = float(divergence(result.model(held_out), model(held_out)).mean())
    assert result.report.settings["drop"]["mean"] == pytest.approx(distance, rel=1e-3)


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


def test_rounds_until_a_group_is_down_to_one_unit() -> None:
    result = sc.prune(linear_stack(6, 8, 2, 3), torch.randn(60, 6), {"units": 0.4}, by="l2", rounds=3, progress=False)
    assert all(len(kept) >= 1 for kept in result.plan.kept.values())


def test_an_accuracy_bound_on_images_of_classes() -> None:
    """Classes lie along the second axis; what is labelled -100 does not count."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))
    x = torch.randn(40, 3, 8, 8)
    labels = model(x).argmax(1)
    labels[:, :2] = -100
    result = sc.prune(model, list(zip(x.split(8), labels.split(8), strict=True)), {"accuracy": -0.2}, progress=False)
    assert -0.2 <= result.report.settings["drop"]["mean"] <= 0
    assert result.plan.cost.macs < result.plan.dense.macs


def weights_as_times(network: sc.Network, *_: Any) -> LatencyTable:
    """A table in which a layer takes a millisecond for each of its weights."""
    layers = []
    for layer in layers_of(network):
        rows, columns = (1, len(layer.inputs)), (1, len(layer.outputs))
        seconds = torch.outer(*(torch.tensor(sizes, dtype=torch.float64) for sizes in (rows, columns))) / 1e3
        layers.append(LayerLatency(layer.inputs, layer.outputs, seconds, 0.0, rows, columns))
    return LatencyTable(tuple(layers), 0.0)


PLANNED = [
    ({"macs": 0.5}, {}),
    ({"macs": 0.4}, {"allocation": ("uniform", "global"), "target": "any"}),
    ({"params": 0.5}, {"round_to": 8, "repair": "refit"}),
    ({"loss": 0.05}, {}),
    ({"latency": 0.6}, {}),
]


@pytest.mark.parametrize(("keep", "settings"), PLANNED)
def test_plan_chooses_the_sizes_that_prune_chooses(
    keep: dict[str, float], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, with the scores handed on, the plan is the one of the whole way in one call."""
    model, x = linear_stack(6, 64, 48, 3), torch.randn(160, 6)
    total = sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(Stopwatch, "time_ratio", lambda _, small: sum(p.numel() for p in small.parameters()) / total)
    monkeypatch.setattr(Stopwatch, "dense_ms", lambda _: [10.0])
    monkeypatch.setattr("secateur.allocation.latency_bounds.measure_latency", weights_as_times)
    result = sc.prune(model, x, keep, holdout=0, progress=False, **settings)
    scores = sc.score(result.plan.network, x, by="obs", progress=False)
    plan = sc.plan(result.plan.network, scores, keep, data=x, model=model, progress=False, **settings)
    assert all(torch.equal(plan.kept[name], kept) for name, kept in result.plan.kept.items())
    assert (plan.keep, plan.notes, plan.change) == (result.plan.keep, result.plan.notes, result.plan.change)
    assert (plan.change is not None) == ("loss" in keep)
    again = sc.prune(model, x, keep, scores=scores, holdout=0, progress=False, **settings)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), result.model.parameters(), strict=True))


def test_a_budget_in_time_without_the_model_goes_by_the_layers_times() -> None:
    model, x = linear_stack(64, 256, 256, 5), torch.randn(40, 64)
    network = sc.trace(model, x[:2])
    scores = sc.score(network, by="l2")
    table = weights_as_times(network)
    plan = sc.plan(network, scores, {"speedup": 2}, data=x, latency=table, progress=False)
    assert table.fraction(network.mask(plan.kept)) <= 0.5
    assert plan.keep == {"speedup": 2}
    assert any("give model= to have the plan cut and timed" in note for note in plan.notes)


def test_what_needs_examples_says_so() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    scores = sc.score(network, by="l2")
    for settings, message in (
        ({"keep": {"macs": 0.5}, "allocation": "auto"}, r"allocation='auto' tries allocations on examples: give data="),
        ({"keep": {"accuracy": -0.1}}, r"bound on the accuracy, which is measured on examples: give data="),
        ({"keep": {"ms": 5}}, r"give data=, by which they are measured, or a table, latency="),
    ):
        with pytest.raises(sc.SecateurError, match=message):
            sc.plan(network, scores, **settings)
    with pytest.raises(sc.SecateurError, match="refuses inputs"):
        sc.plan(network, scores, {"macs": 0.5}, data=torch.randn(8, 5), progress=False)
    with pytest.raises(sc.SecateurError, match="has shape"):
        sc.plan(network, scores, {"macs": 0.5}, data=torch.randn(8, 6), model=linear_stack(6, 9, 3), progress=False)


def test_scores_that_exist_are_taken_or_refused() -> None:
    model, x = linear_stack(6, 16, 3), torch.randn(40, 6)
    scores = sc.score(sc.trace(model, x[:2]), by="l1")
    result = sc.prune(model, x, {"macs": 0.5}, scores=scores, by="l1", progress=False)
    assert result.scores is scores
    assert set(result.plan.kept["0"].tolist()) == set(scores["0"].values.argsort()[8:].tolist())
    for settings, message in (
        ({"by": "l2"}, r"by would change how the network is scored, but scores= are given, by 'l1'"),
        ({"rounds": 2}, r"rounds would change"),
        ({"ablation": "zero", "aggregate": "max"}, r"ablation, aggregate would change"),
    ):
        with pytest.raises(sc.SecateurError, match=message):
            sc.prune(model, x, {"macs": 0.5}, scores=scores, progress=False, **settings)
    for other in (linear_stack(6, 20, 3), linear_stack(6, 16, 16, 3)):
        elsewhere = sc.score(sc.trace(other, x[:2]), by="l1")
        with pytest.raises(sc.SecateurError, match="these are scores of another network"):
            sc.prune(model, x, {"macs": 0.5}, scores=elsewhere, progress=False)


def test_scores_of_some_groups_prune_these_alone() -> None:
    model, x = linear_stack(6, 16, 16, 3), torch.randn(40, 6)
    scores = sc.score(sc.trace(model, x[:2]), by="l1")
    result = sc.prune(model, x, {"units": 0.8}, scores=scores, only="2", progress=False)
    assert set(result.plan.kept) == {"2"}
    assert result.model[0].out_features == 16


def test_compare_takes_the_allocations_that_prune_takes() -> None:
    model, x = linear_stack(6, 24, 24, 3), torch.randn(96, 6)
    comparison = sc.compare(model, x, by=("l1", "l2"), keep={"macs": 0.5}, allocation="auto", progress=False)
    assert comparison.repairs == ("none", "refit")
    assert all(trial.macs <= 0.5 for trial in comparison.trials)


def test_the_defaults_of_prune_are_those_of_its_settings() -> None:
    for function, config in ((sc.prune, DEFAULTS), (sc.compare, COMPARISON)):
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if hasattr(config, name) and parameter.default is not parameter.empty
        }
        assert {"ablation", "allocation", "repair", "seed", "loss"} <= set(defaults)
        for name, value in defaults.items():
            assert name == "by" or value == getattr(config, name)
