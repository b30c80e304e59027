"""Unification while a network is trained: interrupted runs, states, steps that are skipped, bad input."""

from typing import Any

import pytest
import torch

import secateur as sc
from saved_states import saved_states
from secateur.sparsity.unification.unification import Unification
from unification_trainings import UnifiedNetwork, start_unification, train_steps


def test_a_killed_training_goes_on_to_the_same_weights() -> None:
    for stop in (2, 7, 10):
        whole, optimizer, unification = start_unification()
        first, other, before = start_unification()
        for model, moved, trained in ((whole, optimizer, unification), (first, other, before)):
            train_steps(model, moved, 0, min(stop, 8))
            if stop > 8:
                trained.harden()
                train_steps(model, moved, 8, stop)
        resumed = start_unification(seed=9)
        for item, state in zip(resumed, saved_states(first, other, before), strict=True):
            item.load_state_dict(state)
        for model, moved in ((whole, optimizer), resumed[:2]):
            train_steps(model, moved, stop, stop + 6)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruned": 0.7, "unified": 0.5}, "two fractions of at most 1"),
        ({"shape": (1, 1)}, "blocks of two weights or more"),
        ({"shape": 1}, "blocks of two weights or more"),
        ({"shape": "1x8"}, "blocks of two weights or more"),
        ({"rho_": 1.0}, "`Unification` has no option 'rho_'; did you mean 'rho'"),
        ({"shape": (2, 2, 1)}, "has 3 sides, but the weight of second has 4 axes"),
        ({"shape": {"nowhere": 8}}, "matches no layer to structure"),
        ({"rho": 0.0}, "rho above 0"),
        ({"only": "nowhere"}, "matches no layer"),
        ({"only": "second", "skip": "second"}, "no layer to structure"),
    ],
)
def test_bad_input_of_unification(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        start_unification(**options)


def test_unification_does_not_count_a_step_that_a_fused_optimizer_skips() -> None:
    model = UnifiedNetwork()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    unification = Unification(model, optimizer, every=1)
    before = model.second.weight.detach().clone()
    model.second.weight.grad = torch.full_like(before, torch.inf)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert unification.steps == 0 and torch.equal(model.second.weight, before)
    with torch.no_grad():
        model.third.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(sc.SecateurError, match="third has 1 entries that are NaN"):
        Unification(model, optimizer)


def test_nan_stops_and_a_foreign_state_is_refused() -> None:
    model, optimizer, unification = start_unification()
    (model(torch.randn(2, 1, 10, 10)).sum() * float("nan")).backward()
    with pytest.raises(sc.SecateurError, match="step 1 is NaN or infinite in second"):
        optimizer.step()
    with pytest.raises(sc.SecateurError, match="no such blocks as second"):
        unification.load_state_dict(start_unification(shape=(1, 8))[2].state_dict())


def test_unification_refuses_an_optimizer_of_another_model() -> None:
    model = UnifiedNetwork()
    with pytest.raises(sc.SecateurError, match="does not hold second and 1 further weight"):
        Unification(model, torch.optim.SGD(UnifiedNetwork().parameters(), 0.1))
