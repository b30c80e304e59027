"""Repairs that train: your own function, `tune`, and their options."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from repaired_networks import cut_two_fifths
from secateur.evaluation.divergence import divergence

pytestmark = untrained_networks


def test_a_trainer_of_your_own() -> None:
    """It gets the small model, the dense one and three quarters of the examples."""
    seen: list[int] = []

    def train(small: nn.Module, dense: nn.Module, batches: Any) -> None:
        seen.extend(batch.size for batch in batches)
        optimizer = torch.optim.Adam(small.parameters(), 0.01)
        for _ in range(50):
            for batch in batches:
                loss = (small(*batch.args) - dense(*batch.args).detach()).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3))
    data = torch.randn(80, 6)
    small, plan = cut_two_fifths(model, data)
    before = float((small(data) - model(data)).square().mean())
    sc.repair(small, model, plan, data, how=train)
    assert sum(seen) == 60
    assert float((small(data) - model(data)).square().mean()) < 0.5 * before


def test_tuning_goes_on_from_the_refit_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3)).requires_grad_(
        False
    )
    data = torch.randn(400, 6)
    small, plan = cut_two_fifths(model, data)
    state = torch.get_rng_state()
    sc.repair(small, model, plan, data, how="refit", progress=False)
    refitted = float(divergence(small(data), model(data)).mean())
    sc.repair(small, model, plan, data, how="tune", steps=150, learning_rate=3e-3, progress=False)
    assert float(divergence(small(data), model(data)).mean()) < 0.8 * refitted
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in small.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_tuning_with_labels_and_changed_inputs() -> None:
    """Labels and an augmentation are used: each is seen to reach the training."""
    seen: list[torch.Size] = []

    def shaken(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return x + 0.01 * torch.randn_like(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5))
    x = torch.randn(100, 6)
    small, plan = cut_two_fifths(model, x)
    sc.repair(
        small, model, plan, (x, model(x).argmax(1)), how="tune", steps=20, batch_size=16, augment=shaken, progress=False
    )
    assert set(seen) == {torch.Size([16, 6])}


def test_a_loss_that_is_nan_stops_and_the_state_is_the_best_so_far() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(64, 6)
    small, plan = cut_two_fifths(model, x)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(sc.SecateurError, match="tune: the loss is nan at step 1"):
        sc.repair(small, model, plan, x, how="tune", augment=lambda x: x * float("nan"), steps=5, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_options_that_training_does_not_have() -> None:
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(40, 6)
    small, plan = cut_two_fifths(model, x)
    with pytest.raises(sc.SecateurError, match="has no option 'stepz'; did you mean 'steps'"):
        sc.repair(small, model, plan, x, how="tune", stepz=1)
    with pytest.raises(sc.SecateurError, match=r"steps=0 .* whole number of steps from 1 up"):
        sc.prune(model, x, {"macs": 0.5}, repair="tune", tuning={"steps": 0})
    other = sc.plan(plan.network, sc.score(plan.network, by="l2"), {"units": 0.3})
    with pytest.raises(sc.SecateurError, match="was cut by another plan"):
        sc.repair(small, model, other, x)
