"""Layers selected by names, globs, modules and classes: the same groups, whichever way they are named."""

import copy

import pytest
import torch
from torch import nn

import secateur as sc
from secateur import sparsity


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.hidden = nn.Linear(8, 10)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.depthwise(x + self.inner(x))
        return self.fc(torch.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture(scope="module")
def model() -> Residual:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="module")
def network(model: Residual) -> sc.Network:
    return sc.trace(model, torch.randn(2, 3, 6, 6))


def _names(groups: list) -> list[str]:
    return [group.name for group in groups]


def test_a_module_selects_the_groups_that_it_makes(model: Residual, network: sc.Network) -> None:
    assert _names(network.groups) == ["stem.0", "inner.0", "hidden"]
    assert _names(network.select(only=model.hidden)) == ["hidden"]
    assert _names(network.select(only=[model.inner[0], model.hidden])) == ["inner.0", "hidden"]
    assert _names(network.select(only=model.inner)) == ["stem.0", "inner.0"]  # its last layer is added to the stem's
    assert _names(network.select(only=model)) == _names(network.groups)
    assert _names(network.select(only="inner")) == _names(network.select(only=model.inner))
    assert _names(network.select(only="inner.3")) == ["stem.0"]
    assert _names(network.select(skip=model.inner[0])) == ["stem.0", "hidden"]


def test_a_module_that_makes_no_units_selects_those_that_pass_through_it(model: Residual, network: sc.Network) -> None:
    assert _names(network.select(only=model.inner[1])) == ["inner.0"]
    assert _names(network.select(only=model.depthwise)) == ["stem.0"]


def test_a_class_selects_all_of_its_modules(network: sc.Network) -> None:
    assert _names(network.select(only=nn.Linear)) == ["hidden"]
    assert _names(network.select(skip=nn.Conv2d)) == ["hidden"]
    assert _names(network.select(only=nn.BatchNorm2d)) == ["stem.0", "inner.0"]
    assert _names(network.select(only=[nn.Linear, "inner.0"])) == ["inner.0", "hidden"]


def test_a_layer_whose_units_stay_anyway_may_be_skipped(model: Residual, network: sc.Network) -> None:
    assert _names(network.select(skip=[model.fc])) == _names(network.groups)
    with pytest.raises(sc.SecateurError, match="make no units that can be removed"):
        network.select(only=model.fc)
    with pytest.raises(sc.SecateurError, match=r"'fc'; its units can't be removed: it is the network's output"):
        network.select(only="fc")


def test_what_is_not_of_the_model_is_named(model: Residual, network: sc.Network) -> None:
    with pytest.raises(sc.SecateurError, match="a Linear is selected that is no module of this Residual"):
        network.select(only=copy.deepcopy(model).hidden)
    with pytest.raises(sc.SecateurError, match="a Linear is selected that is no module of this Residual"):
        sc.prune(model, torch.randn(8, 3, 6, 6), {"macs": 0.9}, skip=copy.deepcopy(model).hidden)
    with pytest.raises(sc.SecateurError, match="no module of this Residual is a LSTM"):
        network.select(skip=nn.LSTM)
    with pytest.raises(sc.SecateurError, match=r"the nearest are .*inner\.1"):
        network.select(only="inner.11")
    with pytest.raises(sc.SecateurError, match="give a name, a glob, a module, a class of modules"):
        sc.score(network, by="l1", only=[torch.relu])


def test_prune_takes_modules_and_classes(model: Residual) -> None:
    x = torch.randn(32, 3, 6, 6)
    for options in ({"skip": nn.Conv2d}, {"only": model.hidden}, {"skip": [model.stem, model.inner]}):
        result = sc.prune(model, x, {"units": 0.9}, by="l1", repair=None, rounds=2, progress=False, **options)
        assert list(result.plan.kept) == ["hidden"] and len(result.plan.kept["hidden"]) < 10


def test_methods_that_train_a_copy_take_modules(model: Residual) -> None:
    x = [torch.randn(4, 3, 6, 6)]
    options = {"soft_steps": 8, "tuning_steps": 1, "batch_size": 2, "progress": False}
    result = sparsity.unify(model, x, {"blocks": 0.5}, shape=2, skip=[model.inner[0], model.hidden], **options)
    state, dense = result.model.state_dict(), model.state_dict()
    trained = [name for name in dense if name.endswith("weight") and dense[name].dim() > 1]
    zeros = [name for name in trained if (state[name] == 0).any()]
    assert zeros == ["inner.3.weight"]
    with pytest.raises(sc.SecateurError, match="no module of this Residual is a LSTM"):
        sparsity.unify(model, x, {"blocks": 0.5}, shape=2, skip=nn.LSTM, **options)
