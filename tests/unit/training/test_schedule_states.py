"""Schedules whose steps are skipped, interrupted, or refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from saved_states import saved_states
from secateur.training.taylor_schedule import TaylorSchedule
from small_network import batches
from taylor_trainings import network_and_optimizer, nothing_summed, train_with_schedule


def test_a_killed_training_with_a_schedule_goes_on_to_the_same_masks() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.4}, every=2, units_per_step=1)
    for stop in (1, 4, 5):
        again, other = network_and_optimizer()
        first = TaylorSchedule(again, batches()[0][0], other, {"units": 0.4}, every=2, units_per_step=1)
        train_range(again, other, 0, stop)
        states = saved_states(again, other, first)
        resumed, third = network_and_optimizer(seed=9)
        resumed.load_state_dict(states[0])
        third.load_state_dict(states[1])
        last = TaylorSchedule(resumed, batches()[0][0], third, {"units": 0.4}, every=2, units_per_step=1)
        last.load_state_dict(states[2])
        train_range(resumed, third, stop, 9)
        whole, optimizer = network_and_optimizer()
        schedule = TaylorSchedule(whole, batches()[0][0], optimizer, {"units": 0.4}, every=2, units_per_step=1)
        train_range(whole, optimizer, 0, 9)
        assert torch.equal(last.masks.alive, schedule.masks.alive)
        assert torch.equal(resumed.conv1.weight, whole.conv1.weight)


def train_range(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        x, y = batches()[step % 3]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_scaled_gradients_are_squared_unscaled() -> None:
    """Fused optimizers are told the scale by a gradient scaler, and unscale by themselves."""
    plain, scaled = network_and_optimizer(), network_and_optimizer(fused=True)
    schedules = [TaylorSchedule(m, batches()[0][0], o, {"units": 0.5}, every=5) for m, o in (plain, scaled)]
    x, y = batches()[0]
    F.cross_entropy(plain[0](x), y).backward()
    plain[1].step()
    (F.cross_entropy(scaled[0](x), y) * 1024).backward()
    scaled[1].grad_scale, scaled[1].found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    scaled[1].step()
    a, b = (schedule.state_dict()["sums"] for schedule in schedules)
    assert all(torch.allclose(a[name], b[name], rtol=1e-4) for name in a)


def test_a_step_that_a_fused_optimizer_skips_counts_for_nothing() -> None:
    model, optimizer = network_and_optimizer(fused=True)
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5}, every=1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert schedule.steps == 0 and bool(schedule.masks.alive.all()) and nothing_summed(schedule)


def test_nothing_is_read_once_the_budget_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5}, every=1, units_per_step=3)
    train_with_schedule(model, optimizer, schedule)
    monkeypatch.setattr(schedule.gates, "squares", lambda _: pytest.fail("gradients are read for nothing"))
    train_range(model, optimizer, 0, 2)


def test_a_step_that_a_scaler_skips_counts_for_nothing() -> None:
    model, optimizer = network_and_optimizer()
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5}, every=5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(batches()[0][0]), batches()[0][1]) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert schedule.steps == 1 and all(bool(s.isfinite().all()) for s in schedule.state_dict()["sums"].values())


def test_nan_stops_with_the_step_and_the_layer() -> None:
    model, optimizer = network_and_optimizer()
    TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5})
    F.cross_entropy(model(batches()[0][0]) * float("nan"), batches()[0][1]).backward()
    with pytest.raises(sc.SecateurError, match=r"step 1 is NaN or infinite in conv"):
        optimizer.step()


def test_bad_input_is_refused_and_nothing_is_hooked() -> None:
    model, optimizer = network_and_optimizer()
    before = copy.deepcopy(model.state_dict())
    for keep, options, message in (
        ({"latency": 0.5}, {}, "a schedule takes fractions"),
        ({"units": 0.5}, {"every": 0}, "at least one step"),
        ({"macs": 1e-9}, {}, "macs"),
        ({"units": 0.5}, {"only": "nothing"}, "no group is named"),
    ):
        with pytest.raises(sc.SecateurError, match=message):
            TaylorSchedule(model, batches()[0][0], optimizer, keep, **options)
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(sc.SecateurError, match="remove the parametrization"):
        TaylorSchedule(normed, torch.randn(2, 4), torch.optim.SGD(normed.parameters(), 0.1), {"units": 0.5})
    schedule = TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5})
    state = schedule.state_dict()
    state["masks"]["alive"] = state["masks"]["alive"][:-2]
    with pytest.raises(sc.SecateurError, match="the state is of a network of 9 units"):
        schedule.load_state_dict(state)


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, _ = network_and_optimizer()
    _, optimizer = network_and_optimizer(4)
    with pytest.raises(sc.SecateurError, match="holds no parameter of this Small"):
        TaylorSchedule(model, batches()[0][0], optimizer, {"units": 0.5})
