"""Sizes that fill a device's kernels: its step, effective MACs, the preference and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.allocation.candidate_plans import Candidate, preferred_candidate
from secateur.allocation.exchange import exchange_units
from secateur.allocation.plan_sizes import Allocation
from secateur.coupling.effective_macs import EffectiveMacs, effective_macs
from secateur.coupling.group_sizes import sizes_in_steps
from secateur.coupling.plan import Plan
from secateur.evaluation.channel_steps import TARGETS, channel_step, preferred_multiple


def network_of(*widths: int) -> sc.Network:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return sc.trace(nn.Sequential(*layers, nn.Conv2d(widths[-1], 5, 1)), torch.randn(2, 3, 6, 6))


def test_every_target_has_a_channel_step() -> None:
    cpu = torch.device("cpu")
    assert {channel_step(target, cpu).size for target in TARGETS} <= {1, 8, 16}
    assert channel_step("auto", cpu).size == channel_step("cpu", cpu).size == channel_step("onnxruntime", cpu).size
    assert channel_step("auto", torch.device("cuda")) == channel_step("cuda", cpu)
    assert channel_step("any", cpu).size == 1
    with pytest.raises(sc.SecateurError, match="target='tpu' is unknown"):
        channel_step("tpu", cpu)


def test_sizes_that_fill_steps() -> None:
    groups = network_of(40, 16, 24, 32).groups
    assert [preferred_multiple(group, 16) for group in groups] == [16, 1, 16, 16]
    assert sizes_in_steps(groups[0], 16, 1).tolist() == [16, 32, 40]
    assert sizes_in_steps(groups[0], 16, 0.9).tolist() == [40]
    assert sizes_in_steps(groups[2], 16, 1).tolist() == [16, 24]
    assert sizes_in_steps(groups[1], 1, 1).tolist() == list(range(1, 17))


def test_a_narrow_residual_width_stays_whole() -> None:
    network = sc.trace(CifarResNet((16, 32)), torch.randn(2, 3, 8, 8))
    multiples = {(group.kind, group.size): preferred_multiple(group, 16) for group in network.groups}
    assert multiples == {("residual", 16): 16, ("channels", 16): 1, ("residual", 32): 16, ("channels", 32): 16}


class CifarResNet(nn.Module):
    """Two stages of residual blocks."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.widen = nn.Conv2d(*widths, 3, 2, 1)
        for stage, width in enumerate(widths):
            layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(4)]
            setattr(self, f"stage{stage}", nn.ModuleList(layers))
        self.head = nn.Linear(widths[1], 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for stage in (self.stage0, self.stage1):
            x = x if stage is self.stage0 else torch.relu(self.widen(x))
            for first, second in ((stage[0], stage[1]), (stage[2], stage[3])):
                x = torch.relu(second(torch.relu(first(x))) + x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def test_heads_count_by_their_width() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    network = sc.trace(layer, torch.randn(2, 5, 64))
    heads = next(group for group in network.groups if group.kind == "heads")
    assert preferred_multiple(heads, 16) == 1
    kept = {heads.name: torch.arange(2)}
    macs = effective_macs(network, kept, 16)
    assert macs.dense == network.cost().macs
    assert macs.kept == network.cost(kept).macs


def test_effective_macs_by_hand() -> None:
    network = network_of(32, 32)
    kept = {"0": torch.arange(17), "2": torch.arange(20)}
    assert effective_macs(network, kept, 16).kept == effective_macs(network, {}, 16).dense == network.cost().macs
    kept = {"0": torch.arange(16), "2": torch.arange(20)}
    assert effective_macs(network, kept, 16).kept == 36 * (27 * 16 + 9 * 16 * 32 + 32 * 5)
    assert effective_macs(network, kept, 1).kept == network.cost(kept).macs


@pytest.mark.parametrize("keep", [{"macs": 0.5}, {"params": 0.4}, {"macs": 0.7, "bytes": 0.6}])
@pytest.mark.parametrize("allocation", ["uniform", "loss"])
def test_plans_for_a_target_fill_steps_and_use_the_budget_up(keep: dict[str, float], allocation: str) -> None:
    network = network_of(48, 64, 64, 96)
    scores = sc.score(network, by="l2")
    curves = {g.name: scores[g.name].values.sort().values.double().cumsum(0) for g in network.groups}
    curves = {name: torch.cat([torch.zeros(1).double(), curve]) for name, curve in curves.items()}
    plan = sc.plan(network, scores, keep, allocation=allocation, curves=curves, target="avx512")
    assert all(len(kept) % 16 == 0 for kept in plan.kept.values())
    assert all(getattr(plan.cost, unit) <= limit * getattr(plan.dense, unit) for unit, limit in keep.items())
    for name, kept in plan.kept.items():
        larger = {**plan.kept, name: torch.arange(min(len(kept) + 16, network[name].size))}
        cost = network.cost(larger)
        over = any(getattr(cost, unit) > limit * getattr(plan.dense, unit) for unit, limit in keep.items())
        assert over or len(kept) == network[name].size
    assert "macs in steps of 16" in str(plan)


def test_exchanges_find_the_least_loss() -> None:
    """Against all choices: sizes of three groups with a weight each must fit a budget."""
    draws, excess = np.random.default_rng(0), []
    for _ in range(40):
        curves = [np.concatenate([[0], np.sort(draws.random(4)).cumsum()]) for _ in range(3)]
        weights, sizes = draws.integers(1, 4, 3), [np.arange(5)] * 3

        def fits(counts: list[int], weights: np.ndarray = weights) -> bool:
            return int((weights * counts).sum()) <= 10 and max(counts) < 5

        def loss(counts: list[int], curves: list[np.ndarray] = curves) -> float:
            return sum(float(curve[4 - at]) for curve, at in zip(curves, counts, strict=True))

        choices = [[a, b, c] for a in range(5) for b in range(5) for c in range(5) if fits([a, b, c])]
        chosen = exchange_units([0, 0, 0], sizes, curves, fits)
        assert fits(chosen)
        excess.append(loss(chosen) / min(map(loss, choices)))
    assert np.median(excess) == 1
    assert np.mean(excess) < 1.05


def test_the_preference_weighs_loss_against_speed() -> None:
    network = network_of(32, 32)
    scores = sc.score(network, by="l2")
    plain = sc.plan(network, scores, {"macs": 0.5})
    filling = sc.plan(network, scores, {"macs": 0.5}, target="avx512")
    assert plain.effective is not None
    assert filling.effective is not None
    before = Candidate(plain, Allocation(("uniform",)), torch.full((8,), 0.01))

    def chosen(after: float) -> Plan:
        allocation = Allocation(("uniform",), target="avx512")
        return preferred_candidate(before, Candidate(filling, allocation, torch.full((8,), after))).plan

    faster = plain.effective.kept / filling.effective.kept
    assert faster > 1.2
    assert chosen(0.01 * faster).kept is filling.kept
    assert chosen(0.01 * faster**2).kept is plain.kept
    assert "sizes fill steps of 16 channels: the best plan of such sizes keeps" in chosen(0.01).notes[0]
    assert "sizes do not fill steps of 16 channels" in chosen(1.0).notes[0]


def test_sizes_that_fill_kernels_need_evidence() -> None:
    """Losses of a few examples that differ much do not show that a plan of six times the loss is worth its speed.

    The square of the mean root of the losses is .0013, of which .0014 is allowed.
    """
    network = network_of(32, 32)
    scores = sc.score(network, by="l2")
    plain_plan = replace(sc.plan(network, scores, {"macs": 0.5}), effective=EffectiveMacs(16, 368_640, 368_640))
    plain = Candidate(plain_plan, Allocation(("uniform",)), torch.full((8,), 0.0002))
    losses = torch.tensor([0.0] * 7 + [0.085])
    filling = sc.plan(network, scores, {"macs": 0.5}, target="avx512")
    candidate = Candidate(filling, Allocation(("uniform",), target="avx512"), losses)
    assert preferred_candidate(plain, candidate).plan.kept is plain.plan.kept


def test_prune_says_what_it_did_for_the_device() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    x = torch.randn(40, 12)
    result = sc.prune(model, x, {"macs": 0.5}, by="l2", target="avx512", repair=None, progress=False)
    assert result.plan.cost.macs <= 0.5 * result.plan.dense.macs
    assert any("steps of 16 channels" in note for note in result.plan.notes)
    assert "steps of 16 channels" in str(result.report)
    assert not sc.prune(model, x, {"macs": 0.5}, by="l2", target="any", repair=None, progress=False).plan.notes
    hard = sc.prune(model, x, {"macs": 0.5}, by="l2", round_to=8, repair=None, progress=False)
    assert all(len(kept) % 8 == 0 for kept in hard.plan.kept.values())


def test_a_plan_that_fills_steps_by_itself_is_said_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    result = sc.prune(model, torch.randn(40, 12), {"macs": 0.5}, by="l2", target="avx512", repair=None, progress=False)
    assert [len(kept) for kept in result.plan.kept.values()] == [16]
    assert any("sizes fill steps of 16 channels as far as they can" in note for note in result.plan.notes)
