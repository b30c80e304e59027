"""Cutting while training: gates read from gradients, zeros that stay zero, the same network after the cut."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.training.gate_gradients import TrainingGateGradients
from secateur.training.taylor_schedule import TaylorSchedule
from small_network import Small, batches
from taylor_trainings import network_and_optimizer, nothing_summed, train_with_schedule
from zoo import grow


def test_gates_from_gradients_are_those_from_gates() -> None:
    """On the zoo's residual network and on a plain one, beside the criterion that puts gates into the program."""
    for model, example in ((Small().eval(), batches()[0][0]), grow("residual")):
        network = sc.trace(model, example)
        y = torch.arange(len(example)) % 3
        model.zero_grad()
        F.cross_entropy(model(example), y).backward()
        squares_by_group = TrainingGateGradients(network, list(network.groups)).squares(dict(model.named_parameters()))
        expected = sc.score(network, [(example, y)], by="taylor-gates", progress=False)
        assert set(squares_by_group) == set(expected)
        for name, squares in squares_by_group.items():
            assert torch.allclose(squares, expected[name].values, rtol=1e-3, atol=1e-9), name


@pytest.mark.parametrize("units", [0, 0.04, -1, 2.5, True])
def test_a_removal_takes_a_whole_number_of_units(units: Any) -> None:
    model, optimizer = network_and_optimizer()
    with pytest.raises(sc.SecateurError, match=r"units_per_step=.*whole number of units"):
        TaylorSchedule(model, batches()[0][0], optimizer, {"macs": 0.5}, units_per_step=units)


def test_a_schedule_shows_its_steps_and_units() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5}, every=2, units_per_step=1)
    units = schedule.network.units
    assert repr(schedule) == f"TaylorSchedule(steps=0, units={units}/{units}, is_finished=False)"
    train_with_schedule(model, optimizer, schedule)
    assert repr(schedule).endswith(f"units={units // 2}/{units}, is_finished=True)")


def test_the_budget_is_met_within_a_unit_and_the_cut_network_is_the_masked_one() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"macs": 0.5}, every=2, units_per_step=1)
    assert 0 < train_with_schedule(model, optimizer, schedule) < 100
    model.eval()
    x = batches()[0][0]
    before = model(x)
    small = schedule.cut()
    network = sc.trace(Small().eval(), x)
    kept_macs = sc.trace(small, x).cost().macs / network.cost().macs
    assert kept_macs <= 0.5 and torch.allclose(small(x), before, atol=1e-5)
    assert (type(small) is Small and small.conv1.weight.shape[0] < 5) or small.conv2.weight.shape[0] < 6
    state = optimizer.state[small.conv1.weight]["momentum_buffer"]
    assert state.shape == small.conv1.weight.shape
    F.cross_entropy(small.train()(x), batches()[0][1]).backward()
    optimizer.step()  # goes on with the small network


def test_another_criterion_can_take_the_place_of_the_gates() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(
        model, batches()[0][0], optimizer, {"units": 10 / 11}, every=1, by="leave-one-out", data=batches()
    )
    x, y = batches()[0]
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    plain = copy.deepcopy(model).eval()
    scores = sc.score(schedule.network, batches(), by="leave-one-out", ablation="zero", progress=False)
    assert schedule.is_finished and len(plain.conv1.weight) == 5
    gone = {
        name: set(range(schedule.network[name].size)) - set(kept.tolist())
        for name, kept in schedule.masks.kept().items()
    }
    (name,) = (name for name in gone if gone[name])
    assert float(scores[name].values[list(gone[name])]) == pytest.approx(0, abs=1e-6)  # it is gone already


def test_momentum_and_weight_decay_cant_bring_a_unit_back() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.4}, every=1, units_per_step=1)
    train_with_schedule(model, optimizer, schedule, 3)
    gone = torch.nonzero(~schedule.masks.alive[schedule.network["conv1"].span]).flatten()
    others = torch.nonzero(~schedule.masks.alive[schedule.network["conv2"].span]).flatten()
    assert len(gone) + len(others) == 3
    for _ in range(5):
        x, y = batches()[0]
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        assert float(model.bn.weight[gone].abs().sum() + model.conv1.weight[gone].abs().sum()) == 0
        assert float(model.conv2.weight[:, gone].abs().sum() + model.fc.weight[:, others].abs().sum()) == 0


def test_equal_scores_never_remove_more_than_asked_and_no_group_is_emptied() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.fill_(0.1)
            layer.bias.fill_(0.1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    schedule = TaylorSchedule(model, torch.ones(2, 4), optimizer, {"units": 1 / 6}, every=1, units_per_step=5)
    counts = []
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(8, 4)).sum().backward()
        optimizer.step()
        counts.append(sum(len(kept) for kept in schedule.masks.kept().values()))
    assert counts == [7, 2, 2] and schedule.is_finished
    assert all(len(kept) == 1 for kept in schedule.masks.kept().values())


def test_averages_are_exponential_over_removals_and_sums_are_cleared() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.3}, every=2, units_per_step=1, decay=0.5)
    seen: list[Tensor] = []
    hook = optimizer.register_step_pre_hook(
        lambda *_: seen.append(schedule.gates.squares(schedule.masks.parameters)["conv2"])
    )
    train_with_schedule(model, optimizer, schedule, 4)
    hook.remove()
    expected = (seen[0] + seen[1]) / 4 + (seen[2] + seen[3]) / 4
    assert torch.allclose(schedule.state_dict()["averages"]["conv2"], expected) and nothing_summed(schedule)


def test_units_go_in_sets_of_the_lowest_sum_and_counts_are_multiples() -> None:
    """By fixed scores: sets of 4 of one layer of 12 and one of 10, whose first set is what is beyond a multiple."""
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    worth = {"0": torch.arange(12.0).flip(0), "2": torch.tensor([9.0, 0, 1, 8, 7, 6, 5, 4, 3, 2]) / 2}

    def fixed(context: Any) -> dict[str, Tensor]:
        return {group.name: worth[group.name] for group in context.groups}

    schedule = TaylorSchedule(
        model, torch.ones(2, 4), optimizer, {"units": 8 / 22}, every=1, units_per_step=4, round_to=4, by=fixed,
        data=[(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))],
    )  # fmt: skip
    kept = [schedule.masks.kept()]
    while not schedule.is_finished:
        optimizer.zero_grad()
        model(torch.ones(8, 4)).sum().backward()
        optimizer.step()
        kept.append(schedule.masks.kept())
    counts = [(len(plan["0"]), len(plan["2"])) for plan in kept]
    # sums: of the first layer 6, 22; of the second 0.5 (two units), 7, and then 4 stay: 0.5 < 6 < 7 < 22
    assert counts == [(12, 10), (12, 8), (8, 8), (8, 4), (4, 4)]
    assert kept[1]["2"].tolist() == [0, 3, 4, 5, 6, 7, 8, 9] and kept[2]["0"].tolist() == list(range(8))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_momentum_of_removed_units_is_cleared_and_all_of_it_at_the_end(kind: Any) -> None:
    torch.manual_seed(3)
    model = Small()
    options: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), 0.05, **options)
    name = "momentum_buffer" if options else "exp_avg"
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.4}, every=2, units_per_step=2)
    train_with_schedule(model, optimizer, schedule, 2)
    alive = schedule.masks.alive
    for weight, axis, group in ((model.conv2.weight, 0, "conv2"), (model.conv2.weight, 1, "conv1")):
        momentum = optimizer.state[weight][name].movedim(axis, 0)
        stays = alive[schedule.network[group].span]
        assert not bool(momentum[~stays].any()) and bool(momentum[stays].any())
    assert not schedule.is_finished and not bool(alive.all())
    train_with_schedule(model, optimizer, schedule)
    assert schedule.is_finished and not any(bool(state[name].any()) for state in optimizer.state.values())


def test_another_criterion_prunes_what_has_no_gates() -> None:
    """Units of products of activations are read by no weights."""
    model, x = grow("products")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    gates = TaylorSchedule(model, x, optimizer, {"units": 0.9})
    others = TaylorSchedule(model, x, optimizer, {"units": 0.9}, by="l2")
    assert gates.left_whole == ("a", "mix") and [group.name for group in gates.groups] == ["c"]
    assert {group.name for group in others.groups} == {"a", "mix", "c"} and not others.left_whole


def test_a_schedule_takes_a_network_that_was_traced_of_this_model() -> None:
    model, optimizer = network_and_optimizer()
    network = sc.trace(model, batches()[0][0])
    assert TaylorSchedule(model, network, optimizer, {"macs": 0.5}).network is network
    other = sc.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    with pytest.raises(sc.SecateurError, match="in the network that was traced"):
        TaylorSchedule(model, other, optimizer, {"macs": 0.5})
