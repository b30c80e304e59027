"""Layers selected by names, globs, modules and classes: the same groups, whichever way they are named."""

import copy

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from residual_network import Residual
from secateur import sparsity

pytestmark = untrained_networks


def _names(groups: list) -> list[str]:
    return [group.name for group in groups]


def test_a_module_selects_the_groups_that_it_makes(residual: Residual, traced: sc.Network) -> None:
    assert _names(traced.groups) == ["stem.0", "inner.0", "hidden"]
    assert _names(traced.select(only=residual.hidden)) == ["hidden"]
    assert _names(traced.select(only=[residual.inner[0], residual.hidden])) == ["inner.0", "hidden"]
    assert _names(traced.select(only=residual.inner)) == ["stem.0", "inner.0"]  # its last layer is added to the stem's
    assert _names(traced.select(only=residual)) == _names(traced.groups)
    assert _names(traced.select(only="inner")) == _names(traced.select(only=residual.inner))
    assert _names(traced.select(only="inner.3")) == ["stem.0"]
    assert _names(traced.select(skip=residual.inner[0])) == ["stem.0", "hidden"]


def test_a_module_that_makes_no_units_selects_those_that_pass_through_it(
    residual: Residual, traced: sc.Network
) -> None:
    assert _names(traced.select(only=residual.inner[1])) == ["inner.0"]
    assert _names(traced.select(only=residual.depthwise)) == ["stem.0"]


def test_a_class_selects_all_of_its_modules(traced: sc.Network) -> None:
    assert _names(traced.select(only=nn.Linear)) == ["hidden"]
    assert _names(traced.select(skip=nn.Conv2d)) == ["hidden"]
    assert _names(traced.select(only=nn.BatchNorm2d)) == ["stem.0", "inner.0"]
    assert _names(traced.select(only=[nn.Linear, "inner.0"])) == ["inner.0", "hidden"]


def test_a_layer_whose_units_stay_anyway_may_be_skipped(residual: Residual, traced: sc.Network) -> None:
    assert _names(traced.select(skip=[residual.fc])) == _names(traced.groups)
    with pytest.raises(sc.SecateurError, match="make no units that can be removed"):
        traced.select(only=residual.fc)
    with pytest.raises(sc.SecateurError, match=r"'fc'; its units can't be removed: it is the network's output"):
        traced.select(only="fc")


def test_what_is_not_of_the_model_is_named(residual: Residual, traced: sc.Network) -> None:
    with pytest.raises(sc.SecateurError, match="a Linear is selected that is no module of this Residual"):
        traced.select(only=copy.deepcopy(residual).hidden)
    with pytest.raises(sc.SecateurError, match="a Linear is selected that is no module of this Residual"):
        sc.prune(residual, torch.randn(8, 3, 6, 6), {"macs": 0.9}, skip=copy.deepcopy(residual).hidden)
    with pytest.raises(sc.SecateurError, match="no module of this Residual is a LSTM"):
        traced.select(skip=nn.LSTM)
    with pytest.raises(sc.SecateurError, match=r"the nearest are .*inner\.1"):
        traced.select(only="inner.11")
    with pytest.raises(sc.SecateurError, match="give a name, a glob, a module, a class of modules"):
        sc.score(traced, by="l1", only=[torch.relu])


def test_prune_takes_modules_and_classes(residual: Residual) -> None:
    x = torch.randn(32, 3, 6, 6)
    for options in ({"skip": nn.Conv2d}, {"only": residual.hidden}, {"skip": [residual.stem, residual.inner]}):
        result = sc.prune(residual, x, {"units": 0.9}, by="l1", repair=None, rounds=2, progress=False, **options)
        assert list(result.plan.kept) == ["hidden"] and len(result.plan.kept["hidden"]) < 10


def test_methods_that_train_a_copy_take_modules(residual: Residual) -> None:
    x = [torch.randn(4, 3, 6, 6)]
    options = {"soft_steps": 8, "tuning_steps": 1, "batch_size": 2, "progress": False}
    result = sparsity.unify(residual, x, {"blocks": 0.5}, shape=2, skip=[residual.inner[0], residual.hidden], **options)
    state, dense = result.model.state_dict(), residual.state_dict()
    trained = [name for name in dense if name.endswith("weight") and dense[name].dim() > 1]
    zeros = [name for name in trained if (state[name] == 0).any()]
    assert zeros == ["inner.3.weight"]
    with pytest.raises(sc.SecateurError, match="no module of this Residual is a LSTM"):
        sparsity.unify(residual, x, {"blocks": 0.5}, shape=2, skip=nn.LSTM, **options)
