"""Layers solved for through the nonlinearity behind them, and together with those that read them."""

from functools import partial
from typing import Any

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from plans_by_norm import plan_by_norm
from secateur import demo
from secateur.evaluation.divergence import divergence
from secateur.evaluation.holdout import improves
from secateur.recovery import block_reconstruction
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.reconstruction_layers import reconstruction_blocks
from secateur.recovery.refit import refit
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.repair_step import RepairStep
from secateur.recovery.ridge import systems_of
from solved_repairs import repaired_by
from zoo import grow

pytestmark = untrained_networks


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_layers_that_adapt_bring_the_network_nearer_than_a_refit(keep: float) -> None:
    model, x = demo.network(), torch.cat(demo.calibration())[:64]
    plan = plan_by_norm(model, x, {"macs": keep})
    test = torch.cat([batch[0] for batch in demo.test()[:10]])
    distances = []
    for repairs in ((refit,), (refit, reconstruct_blocks)):
        small = repaired_by(model, plan, x, *repairs)
        with torch.no_grad():
            distances.append(float(divergence(small(test), model(test)).mean()))
    assert distances[1] < 0.8 * distances[0]


def test_mirror_images_bring_a_network_nearer_that_answers_them_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = demo.network(), torch.cat(demo.calibration())[:64]
    plan = plan_by_norm(model, x, {"macs": 0.5})
    test = torch.cat([batch[0] for batch in demo.test()[:10]])
    adapt_with_mirrored = partial(reconstruct_blocks, adds_mirrored=True)
    plain, mirrored = (repaired_by(model, plan, x, refit, adapt) for adapt in (reconstruct_blocks, adapt_with_mirrored))
    with torch.no_grad():
        distances = [float(divergence(small(test), model(test)).mean()) for small in (plain, mirrored)]
    assert distances[1] < 0.97 * distances[0]
    monkeypatch.setattr(block_reconstruction, "EXAMPLES", 80)  # 16 more than there are, and microbatches have 32
    without_room = repaired_by(model, plan, x, refit, adapt_with_mirrored)
    assert all(torch.equal(a, b) for a, b in zip(without_room.parameters(), plain.parameters(), strict=True))


def test_what_is_solved_for_together() -> None:
    """A layer, what makes the same units before they are read, and two rings of readers; depthwise layers go along."""
    network = sc.trace(demo.network(), demo.calibration()[0][:2])
    layers_of_stretches = {
        block.producers[0].name: (
            [layer.name for layer in block.producers[1:]],
            [layer.name for layer in block.consumers],
        )
        for block in reconstruction_blocks(network)
    }
    assert layers_of_stretches["layer1.0.conv1"] == ([], ["layer1.0.conv2", "layer1.1.conv1"])
    assert layers_of_stretches["layer1.0.conv2"] == (["layer1.0.skip.0"], ["layer1.1.conv1", "layer1.1.conv2"])
    assert layers_of_stretches["layer2.1.conv2"] == ([], ["fc"])
    assert "fc" not in layers_of_stretches and "layer1.0.skip.0" not in layers_of_stretches


def test_adapt_changes_nothing_where_nothing_is_cut() -> None:
    model, x = grow("residual")
    plan = plan_by_norm(model, x, {"units": 1.0})
    small = repaired_by(model, plan, torch.randn(40, 3, 8, 8), reconstruct_blocks)
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_as_a_repair_it_leaves_all_else_as_it_was() -> None:
    model, x = demo.network().requires_grad_(False), torch.cat(demo.calibration())[:24]
    plan = plan_by_norm(model, x, {"macs": 0.3})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    small = sc.repair(sc.cut(model, plan), model, plan, x, ["refit", "adapt"], progress=False)
    again = sc.repair(sc.cut(model, plan), model, plan, x, ["refit", "adapt"], progress=False)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in (*small.parameters(), *model.parameters())
    )
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True))


def test_a_step_is_left_out_where_it_is_worse_than_chance_explains() -> None:
    """Of the usual steps by more than a standard error, of others by anything; what changes nothing goes, too."""
    before = torch.tensor([1.0, 1.0, 1.0, 1.0])
    worse_by_chance, worse = torch.tensor([0.5, 0.5, 0.5, 2.7]), torch.tensor([1.2, 1.3, 1.2, 1.3])
    assert improves(before, worse_by_chance, allowance=1.0) and not improves(before, worse_by_chance, allowance=0.0)
    assert not improves(before, worse, allowance=1.0)
    assert not improves(before, before, allowance=1.0)
    assert improves(before, 0.9 * before, allowance=0.0)
    assert improves(before, 0.9 * before, allowance=-1.0) and not improves(before, before - 1e-9, allowance=-1.0)


def test_how_loudly_a_unit_speaks_changes_nothing_of_a_refit() -> None:
    """Inputs in other units of measurement, weights in the inverse of them: the same outputs at every ridge."""
    torch.manual_seed(0)
    rows, targets = torch.randn(2, 50, 7).double(), torch.randn(2, 50, 3).double()
    rows[..., -1] = 1
    scale = torch.tensor([1.0, 10, 0.1, 100, 3, 0.5, 1]).double()
    for ridge in (1e-4, 1e-1, 1.0):
        plain, scaled = (
            systems_of(RegressionMoments.of(x, targets), True)(ridge).solution for x in (rows, rows * scale)
        )
        assert torch.allclose(rows @ plain, rows * scale @ scaled, atol=1e-3)


def test_a_few_photos_do_not_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers with many places see many examples, too."""
    seen: list[int] = []
    solve = BlockProblem.solve

    def noted(self: BlockProblem, most: int) -> None:
        seen.append(sum(self.sizes))
        solve(self, most)

    monkeypatch.setattr(BlockProblem, "solve", noted)
    monkeypatch.setattr("secateur.recovery.block_reconstruction.EXAMPLES", 64)
    model, x = demo.network(), torch.cat(demo.calibration())[:96]
    repaired_by(model, plan_by_norm(model, x, {"macs": 0.5}), x, reconstruct_blocks)
    assert seen and set(seen) == {64}


def test_one_or_two_examples_are_not_fitted() -> None:
    model, x = demo.network(), demo.calibration()[0][:2]
    plan = plan_by_norm(model, x, {"macs": 0.5})
    small = sc.cut(model, plan)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.warns(UserWarning, match="adapt was left out"):
        sc.repair(small, model, plan, x, "adapt", progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_over_fitting_is_told_where_what_is_held_out_is_far() -> None:
    assert RepairStep("adapt", 0.9, 0.5, 0.1, True).overfitted
    assert not RepairStep("adapt", 0.9, 0.25, 0.1, True).overfitted
    assert not RepairStep("adapt", 0.02, 0.012, 0.0, True).overfitted


def test_fewer_examples_are_looked_at_where_what_layers_give_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with the size of images: as many as find room, and layers adapt all the same."""
    model, x = demo.network(), torch.cat(demo.calibration()[:3])
    plan = plan_by_norm(model, x, {"macs": 0.4})
    counts: list[int] = []

    class Watched(BlockProblem):
        def __init__(self, execution: PairedExecution, *rest: Any) -> None:
            counts.append(sum(microbatch.size or 1 for microbatch in execution.microbatches))
            super().__init__(execution, *rest)

    monkeypatch.setattr("secateur.recovery.block_reconstruction.BlockProblem", Watched)
    one = 4 * 28 * 28 * (24 + 32 + 32)  # bytes of what three layers at the full size give for an image
    monkeypatch.setattr("secateur.recovery.block_reconstruction.MEMORY", 32 * one)
    plain, adapted = (
        repaired_by(model, plan, x),
        repaired_by(model, plan, x, lambda execution: reconstruct_blocks(execution, 1)),
    )
    assert 0 < max(counts) < 96
    with torch.no_grad():
        assert float(divergence(adapted(x), model(x)).mean()) < float(divergence(plain(x), model(x)).mean())
