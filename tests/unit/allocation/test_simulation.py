"""Simulated plans come to what a cut and a refit come to, and are judged by examples that were not fitted."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur import demo
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import PruneConfig
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.simulation_fold import SMALL
from secateur.allocation.tied_groups import tie_groups
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.divergence import divergence
from secateur.graph.cursor import ProgramCursor, RunState
from secateur.graph.operators import module_path
from secateur.graph.value_bytes import last_small_position
from secateur.importance.context import network_microbatches, split_microbatches
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.surgery.recipe import recipe_of
from simulated_plans import simulator_of

pytestmark = untrained_networks


def test_a_simulation_is_what_cutting_and_refitting_comes_to() -> None:
    model, data = demo.network(), demo.calibration()
    simulator = simulator_of(model, data)
    scores = sc.score(simulator.network, by="l2")
    plan = sc.plan(simulator.network, scores, {"macs": 0.5})
    small = sc.cut(model, plan)
    fitted = [microbatch.args[0] for microbatch in simulator.fitted.microbatches]
    cut_network = EmbeddedPrunedNetwork.of(small, simulator.network, recipe_of(model, plan))
    with torch.no_grad():
        refit(PairedExecution(cut_network, split_microbatches(as_batches(fitted), torch.device("cpu"))))
        cut_network.write(small)
        for pair in simulator.outputs(plan.kept):
            assert torch.allclose(small(*pair.batch.args), pair.small, atol=2e-2 * float(pair.dense.abs().max()))


def test_quick_simulations_take_microbatches_from_all_over_the_examples() -> None:
    """Examples that are sorted by class: a part of them from one end would know a few classes alone."""
    x = torch.arange(640.0)[:, None].expand(-1, 6).contiguous()
    whole = simulator_of(linear_stack(6, 8, 3), list(x.split(32)))
    for quick in (whole.quick(192), whole.quick_held_out(192)):
        microbatches = [*quick.fitted.microbatches, *quick.held_out.microbatches]
        starts = [float(microbatch.args[0][0, 0]) for microbatch in quick.fitted.microbatches]
        assert min(starts) < 160 and max(starts) >= 480
        assert sum(microbatch.size or 1 for microbatch in microbatches) == pytest.approx(192, abs=32)
        assert quick.examples == sum(microbatch.size or 1 for microbatch in microbatches)


def recorded_runs(monkeypatch: pytest.MonkeyPatch, network: sc.Network) -> list[str]:
    """Return a list to which each run of a program is added: "dense" for one of the dense network from its start."""
    runs: list[str] = []
    advance = ProgramCursor.advance

    def counted(self: ProgramCursor, state: RunState, stop: int, fixed: Any, *others: Any, **options: Any) -> RunState:
        runs.append("dense" if not others and stop > state.position == network.program.first else "other")
        return advance(self, state, stop, fixed, *others, **options)

    monkeypatch.setattr(ProgramCursor, "advance", counted)
    return runs


def test_outputs_over_a_vocabulary_are_computed_again_from_small_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as of outputs that are kept; the dense network's layers run once for all plans."""
    torch.manual_seed(0)
    layers = [nn.Embedding(400, 6), nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 400)]
    model, data = nn.Sequential(*layers), list(torch.randint(0, 400, (32, 8)).split(8))
    network = sc.trace(model, data[0])
    microbatches = network_microbatches(network, as_batches(data))  # of class scores for each token
    late = network.program.nodes[last_small_position(network.program, SMALL)]
    assert module_path(late) == "5"
    plans = [{"1": torch.arange(kept), "3": torch.arange(kept)} for kept in (4, 8, 12)]
    runs = recorded_runs(monkeypatch, network)
    measured, starts = [], []
    for entries, late_bytes in ((1 << 30, 1 << 30), (0, 1 << 30), (0, 0)):
        monkeypatch.setattr("secateur.allocation.simulation_fold.MOST_ENTRIES", entries)
        monkeypatch.setattr("secateur.allocation.simulation_fold.LATE_BYTES", late_bytes)
        runs.clear()
        quick = PlanSimulator(Calibration(network, microbatches)).quick(32)
        measured.append(torch.stack([quick.divergences(kept) for kept in plans]))
        starts.append(runs.count("dense"))
    assert torch.equal(measured[0], measured[1])
    torch.testing.assert_close(measured[0], measured[2], rtol=1e-4, atol=0)  # beside the cut network, in other products
    assert starts[1] < starts[2]


@pytest.mark.parametrize("microbatch", [1, 8, 40])
def test_each_half_of_the_examples_judges_what_is_refitted_on_the_other(microbatch: int) -> None:
    """A change of an example changes its own divergence, and those of the other half, but no other of its half."""
    model, x = linear_stack(6, 16, 16, 3), torch.randn(40, 6)
    changed = x.index_add(0, torch.tensor([0]), torch.ones(1, 6))
    kept = {"0": torch.arange(6), "2": torch.arange(9)}
    order, losses = list[int](), list[torch.Tensor]()
    for examples in (x, changed):
        quick = simulator_of(model, list(examples.split(microbatch))).quick(64)
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
    quick = simulator_of(linear_stack(6, 16, 3), torch.randn(3, 6)).quick(64)
    assert [(fold.fitted, fold.rows_share) for fold in quick.folds] == [(quick.held_out, 1)]


def test_plans_are_told_apart_as_many_other_examples_tell() -> None:
    """With 64 images, of which a third would be held out: what they say of two plans is what 256 others say."""
    model, data = demo.network(), demo.calibration()[:2]
    simulator = simulator_of(model, data)
    scores = sc.score(simulator.network, by="l2")
    early = ("stem.0", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1")
    dear_late = {name: torch.arange(len(scores[name].values) + 1) * (1.0 if name in early else 9.0) for name in scores}
    curves = {name: curve.double() for name, curve in dear_late.items()}
    plans = [
        sc.plan(simulator.network, scores, {"macs": 0.3}),
        sc.plan(simulator.network, scores, {"macs": 0.3}, allocation="loss", curves=curves),
    ]
    x = torch.cat([images for images, _ in demo.test()[:8]])
    losses = []
    for plan in plans:
        small = sc.repair(sc.cut(model, plan), model, plan, data, "refit", progress=False)
        with torch.no_grad():
            losses.append(float(divergence(small(x), model(x)).mean()))
    quick = simulator.quick(64)
    judged = [quick.divergences(plan.kept) for plan in plans]
    assert [len(fold) for fold in judged] == [64, 64]
    assert (judged[0].mean() < judged[1].mean()) == (losses[0] < losses[1])


def test_residual_widths_stay_where_that_comes_nearer() -> None:
    """Ways to allocate are tried with residual widths as they are, and without them where the budget needs them."""
    model, data = demo.network(), demo.calibration()[:1]
    simulator = simulator_of(model, data)
    network, scores = simulator.network, sc.score(simulator.network, by="l2")
    config = PruneConfig(floor=0.5)
    tied = tie_groups(network, scores)
    allocator = PlanSearch(simulator, tied, config, None, candidate_allocations(simulator, scores, config))
    way = next(way for way in allocator.allocations if way.whole)
    residual = [group for group in network.groups if group.kind == "residual"]
    whole = allocator.plan({"macs": 0.7}, way)
    assert residual and all(len(whole.kept[group.name]) == group.size for group in residual)
    assert whole.cost == network.cost(whole.kept) and whole.cost.macs <= 0.7 * whole.dense.macs
    least = allocator.plan({"macs": 0.4}, way)
    assert any(len(least.kept[group.name]) < group.size for group in residual)
    assert least.cost.macs <= 0.4 * least.dense.macs
    sc.cut(model, whole)
