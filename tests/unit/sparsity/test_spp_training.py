"""SPP while a network is trained: interrupted runs, states, steps that are skipped."""

import pytest
import torch

import secateur as sc
from saved_states import saved_states
from secateur.sparsity.spp.spp import SPP
from spp_trainings import ColumnNetwork, StreamedBlock, start_spp, train_in_portions


def test_spp_refuses_an_optimizer_of_another_model() -> None:
    """Its steps would never train what is pruned; one that lacks a single layer is refused as well."""
    model, other = ColumnNetwork(), ColumnNetwork()
    with pytest.raises(sc.SecateurError, match="this SGD does not hold second and 1 further weight of this model"):
        SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(other.parameters(), 0.1), {"columns": 0.5})
    some = [parameter for name, parameter in model.named_parameters() if name != "third.weight"]
    with pytest.raises(sc.SecateurError, match="does not hold third of this model"):
        SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(some, 0.1), {"columns": 0.5})
    SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(some, 0.1), {"columns": 0.5}, skip=("first", "third"))


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_killed_training_of_spp_goes_on_to_the_same_masks(stop: int) -> None:
    whole, optimizer, spp = start_spp()
    train_in_portions(whole, optimizer, 0, 12)
    first, other, before = start_spp()
    train_in_portions(first, other, 0, stop)
    resumed, third, after = start_spp(seed=5)
    for item, state in zip((resumed, third, after), saved_states(first, other, before), strict=True):
        item.load_state_dict(state)
    train_in_portions(resumed, third, stop, 12)
    for a, b in zip(spp.columns, after.columns, strict=True):
        assert (
            torch.equal(a.masked, b.masked)
            and torch.equal(a.chances, b.chances)
            and torch.equal(a.unmasked_weight, b.unmasked_weight)
        )
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_step_that_a_fused_optimizer_skips_draws_no_masks() -> None:
    torch.manual_seed(0)
    model = ColumnNetwork()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    spp = SPP(model, torch.randn(2, 1, 9, 9), optimizer, {"columns": 0.5}, every=1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    before, state = model.second.weight.detach().clone(), spp.draws.get_state()
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert spp.steps == 0 and torch.equal(model.second.weight, before) and torch.equal(spp.draws.get_state(), state)


def test_a_state_of_another_network_is_refused() -> None:
    _, _, spp = start_spp()
    state = spp.state_dict()
    state["layers"]["second.weight"]["held"] = torch.zeros(1)
    with pytest.raises(sc.SecateurError, match="no such layer as second"):
        spp.load_state_dict(state)


def test_scaled_steps_that_are_skipped_count_for_nothing_and_nan_stops() -> None:
    model, optimizer, spp = start_spp()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 1, 9, 9)).square().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert spp.steps == 1
    optimizer.zero_grad()
    (model(torch.randn(4, 1, 9, 9)).mean() * float("nan")).backward()
    with pytest.raises(sc.SecateurError, match="step 2 is NaN or infinite in second"):
        optimizer.step()


def test_it_cant_be_finished_before_its_time() -> None:
    with pytest.raises(sc.SecateurError, match="train on until"):
        start_spp()[2].finish()


def test_a_state_with_the_former_name_of_its_end_is_loaded() -> None:
    model, x = StreamedBlock(), torch.randn(2, 1, 6, 6)
    spp = SPP(model, x, torch.optim.SGD(model.parameters(), 0.1), {"columns": 0.75}, every=1)
    state = spp.state_dict()
    state["done"] = not state.pop("is_finished")
    spp.load_state_dict(state)
    assert spp.is_finished
