"""Repairs that are functions of the user's own, and repairs where an operator has no gradient."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 2)).eval()


def cut_network() -> tuple[nn.Module, nn.Module, sc.Plan]:
    model = network()
    traced = sc.trace(model, torch.randn(2, 4))
    plan = sc.plan(traced, sc.score(traced, by="l2"), keep={"units": 0.5})
    return sc.cut(model, plan), model, plan


def test_a_function_of_other_arguments_is_refused_before_the_network_runs() -> None:
    def match(small: nn.Module) -> None:
        """Take one argument."""

    model = network()
    model.register_forward_hook(lambda *_: pytest.fail("the network ran"))
    with pytest.raises(sc.errors.OptionError, match=r"match\(small.*can't be called with three arguments"):
        sc.prune(model, torch.randn(32, 4), keep={"units": 0.5}, by="l2", repair=match, progress=False)


def test_a_function_that_changes_the_dense_model_changes_a_copy() -> None:
    def spoil(small: nn.Module, dense: nn.Module, batches: object) -> None:
        with torch.no_grad():
            dense[-1].weight.zero_()  # type: ignore[index]

    small, model, plan = cut_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="spoil was left out"):
        sc.repair(small, model, plan, torch.randn(32, 4), spoil, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_function_gets_models_in_evaluation_mode_and_leaves_the_modes_of_the_users() -> None:
    modes = []

    def train(small: nn.Module, dense: nn.Module, batches: object) -> None:
        modes.append((small.training, small[0].training, dense.training))  # type: ignore[index]
        small.train()

    small, model, plan = cut_network()
    model.train()
    small.train()
    small[1].eval()  # type: ignore[index]
    with pytest.warns(UserWarning, match="train was left out"):
        sc.repair(small, model, plan, torch.randn(32, 4), train, progress=False)
    assert modes == [(False, False, False)]
    assert model.training and small.training and not small[1].training  # type: ignore[index]


@pytest.mark.parametrize("change", [lambda last: nn.Sequential(last), lambda last: nn.Linear(last.in_features, 3)])
def test_a_function_that_changes_names_or_shapes_is_refused(change: Any) -> None:
    def rebuild(small: nn.Module, dense: nn.Module, batches: object) -> None:
        small[-1] = change(small[-1])  # type: ignore[operator,index]

    small, model, plan = cut_network()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(sc.errors.SurgeryError, match=r"the repair rebuild changed 4\..*change values in place"):
        sc.repair(small, model, plan, torch.randn(32, 4), rebuild, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_function_that_returns_another_model_is_refused() -> None:
    def rebuild(small: nn.Module, dense: nn.Module, batches: object) -> nn.Module:
        return network()

    small, model, plan = cut_network()
    with pytest.raises(sc.errors.SurgeryError, match=r"the repair rebuild returned another model.*load_state_dict"):
        sc.repair(small, model, plan, torch.randn(32, 4), rebuild, progress=False)


@pytest.mark.filterwarnings("ignore:.*was left out")
@pytest.mark.parametrize("result", [lambda small: small, lambda small: [0.5, 0.4]])
def test_a_function_may_return_the_small_model_or_its_losses(result: Any) -> None:
    trained = list[nn.Module]()

    def train(small: nn.Module, dense: nn.Module, batches: object) -> object:
        trained.append(small)
        return result(small)

    small, model, plan = cut_network()
    assert sc.repair(small, model, plan, torch.randn(32, 4), train, progress=False) is small
    assert trained and all(type(network) is type(small) for network in trained)


def test_adapt_is_left_out_where_an_operator_has_no_gradient() -> None:
    @torch.library.custom_op("secateur_tests::halved", mutates_args=())
    def halved(x: Tensor) -> Tensor:
        return x / 2

    halved.register_fake(torch.empty_like)

    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return halved(x)

    model = network()
    model[1] = Halved()  # type: ignore[index]
    data = torch.randn(64, 4)
    with sc.register_rule(halved, "relu"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sc.prune(model, data, keep={"units": 0.5}, by="l2", progress=False)
    assert [step["name"] for step in result.report.settings["repairs"]] == ["refit"]
    message = next(str(warning.message) for warning in caught if "adapt" in str(warning.message))
    assert "halved" in message and "register_autograd" in message
