"""Simulated plans share what they read of the dense network."""

from typing import Any

import pytest
import torch

import secateur as sc
from batch_normed import folding_network
from expected_warnings import untrained_networks
from plans_by_norm import microbatches_of
from secateur import demo
from secateur.allocation.measured_curves import measured_curves
from secateur.allocation.simulate import PlanSimulator
from secateur.evaluation.calibration import Calibration
from secateur.graph.cursor import ProgramCursor
from secateur.masking.linear_layers import layers_of
from secateur.recovery import refit
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.pruned_layer import PrunedLayer

pytestmark = untrained_networks


def test_simulated_plans_share_what_they_read_of_the_dense_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense network runs beside the first plan alone, and divergences are those of a fresh simulator."""
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    network = sc.trace(model, x[:2])
    simulator = PlanSimulator(Calibration(network, microbatches_of(x, 16)))
    scores = sc.score(network, by="l2")
    plans = [sc.plan(network, scores, {"units": keep}).kept for keep in (0.8, 0.5, 0.7)]
    expected = [simulator.quick(32).divergences(kept) for kept in plans]
    dense_runs, advance = list[int](), ProgramCursor.advance

    def counted(self: ProgramCursor, state: Any, stop: int, fixed: Any, handlers: Any = None, **options: Any) -> Any:
        dense_runs.append(int(handlers is None and stop > state.position))
        return advance(self, state, stop, fixed, handlers, **options)

    monkeypatch.setattr(ProgramCursor, "advance", counted)
    quick, runs = simulator.quick(32), list[int]()
    for kept, divergences in zip(plans, expected, strict=True):
        dense_runs.clear()
        assert torch.equal(quick.divergences(kept), divergences)
        runs.append(sum(dense_runs))
    assert runs[0] > 0 and runs[1:] == [0, 0]


def test_without_room_the_dense_network_runs_beside_every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    network = sc.trace(model, x[:2])
    simulator = PlanSimulator(Calibration(network, microbatches_of(x, 16)))
    kept = sc.plan(network, sc.score(network, by="l2"), {"units": 0.5}).kept
    expected = simulator.quick(32).divergences(kept)
    monkeypatch.setattr("secateur.allocation.simulation_fold.KNOWN_MEMORY", 1e-4)  # some layers alone
    quick = simulator.quick(32)
    assert torch.equal(quick.divergences(kept), expected) and torch.equal(quick.divergences(kept), expected)
    known = quick.fitted.known
    assert known is not None and 0 < sum(known.has(layer) for layer in quick.layers) < len(quick.layers)


def test_a_curve_leaves_layers_alone_that_read_what_they_read_in_the_dense_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A depthwise convolution reads its own units before anything lacks them; no curve starts from the input again."""
    model, x = folding_network("inverted residual")
    network = sc.trace(model, x[:2])
    scores = sc.score(network, by="l2")
    whole = PlanSimulator(Calibration(network, microbatches_of(torch.randn(64, *x.shape[1:]), 16)))
    depthwise = {layer.name for layer in layers_of(network) if layer.groups > 1}
    assert depthwise & {layer.name for name in scores for layer in whole.consumers(name)}
    refitted, starts = set[str](), list[int]()
    refit_layer, advance = refit.refit_layer, ProgramCursor.advance

    def recorded(execution: PairedExecution, pruned_layer: PrunedLayer, *options: Any, **sums: Any) -> Any:
        refitted.add(pruned_layer.layer.name)
        return refit_layer(execution, pruned_layer, *options, **sums)

    def counted(self: ProgramCursor, state: Any, stop: int, *options: Any, **more: Any) -> Any:
        starts.append(state.position)
        return advance(self, state, stop, *options, **more)

    monkeypatch.setattr(refit, "refit_layer", recorded)
    monkeypatch.setattr(ProgramCursor, "advance", counted)
    simulator = whole.quick_held_out(48)
    curves = measured_curves(simulator, scores)
    assert curves is not None and refitted and not depthwise & refitted
    runs = len(simulator.fitted.microbatches) + 2 * len(
        simulator.held_out.microbatches
    )  # the latter give dense outputs as well
    assert starts.count(network.program.first) == runs
