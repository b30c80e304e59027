"""The optimizer's state is cut with the parameters."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import secateur as sc
from half_cuts import halved
from secateur.coupling.plan import Plan

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "NAdam": lambda p: torch.optim.NAdam(p),
    "Adafactor": lambda p: torch.optim.Adafactor(p),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), torch.tensor([0, 1, 2])).backward()
    optimizer.step()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_is_cut_with_the_parameters(name: str, inplace: bool) -> None:
    """A unit that was dead all along: training goes on as if it had never been there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].weight.data[2], model[0].bias.data[2], model[2].weight.data[:, 2] = 0, -1, 0
    without = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    alive = torch.tensor([0, 1, 3, 4, 5])
    without[0].weight.data, without[0].bias.data = model[0].weight.data[alive], model[0].bias.data[alive]
    without[2].weight.data, without[2].bias.data = model[2].weight.data[:, alive], model[2].bias.data.clone()
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in (model, without)]
    x = torch.randn(3, 4)
    for _ in range(3):
        for trained, optimizer in zip((model, without), optimizers, strict=True):
            step(trained, optimizer, x)
    network = sc.trace(model, x)
    plan = Plan(network, {"0": alive}, {}, network.cost(), network.cost(), {})
    small = sc.cut(model, plan, inplace=inplace, optimizer=optimizers[0])
    assert {id(p) for g in optimizers[0].param_groups for p in g["params"]} == {id(p) for p in small.parameters()}
    for _ in range(3):
        for trained, optimizer in zip((small, without), optimizers, strict=True):
            step(trained, optimizer, x)
    if (
        name != "Adafactor"
    ):  # its step is scaled by the root mean square of the whole parameter, the dead unit's included
        for a, b in zip(small.parameters(), without.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_an_optimizer_that_can_not_be_cut_is_left_alone() -> None:
    model, network, plan = halved("mlp")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.state[model[0].weight] = {"flat": torch.zeros(60)}
    parameter_ids = [id(p) for p in optimizer.param_groups[0]["params"]]
    with pytest.raises(sc.SecateurError, match=r"'flat' of 0\.weight"):
        sc.cut(model, plan, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == parameter_ids


COMPUTED_WEIGHTS = {
    "weight norm": parametrizations.weight_norm,
    "weight norm by hooks": nn.utils.weight_norm,
    "spectral norm by hooks": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "wrapped": nn.DataParallel,
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", COMPUTED_WEIGHTS)
def test_an_optimizer_gets_the_weights_that_were_computed(name: str, inplace: bool) -> None:
    torch.manual_seed(0)
    first = COMPUTED_WEIGHTS[name](nn.Linear(4, 6))
    model, x = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 3)), torch.randn(3, 4)
    names = {parameter: name for name, parameter in model.named_parameters()}
    computed = [parameter for parameter, name in names.items() if name.startswith("0.") and "bias" not in name]
    others = [parameter for parameter in names if not any(parameter is other for other in computed)]
    optimizer = torch.optim.Adam([{"params": computed, "lr": 0.01}, {"params": others, "lr": 0.1}])
    step(model, optimizer, x)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), keep={"units": 0.5})
    small = sc.cut(model, plan, optimizer=optimizer, inplace=inplace)
    groups = [{id(parameter) for parameter in group["params"]} for group in optimizer.param_groups]
    assert groups == [{id(small[0].weight)}, {id(small[0].bias), id(small[2].weight), id(small[2].bias)}]
    assert all(state["exp_avg"].shape == parameter.shape for parameter, state in optimizer.state.items())
    assert small[2].weight in optimizer.state
    assert (small[0].weight in optimizer.state) == (name == "wrapped")
    step(small, optimizer, x)
