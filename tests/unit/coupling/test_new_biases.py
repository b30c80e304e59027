"""Biases that layers without one get for removed units: they are named, can be forbidden, and no adapter gets one."""

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.comparison import trials

pytestmark = untrained_networks

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))


class Adapted(nn.Module):
    """A linear layer and a low-rank change of it, as adapters are written."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.down = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.up = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up["default"](self.down["default"](x))


def merged(adapted: Adapted) -> nn.Linear:
    """The plain layer; whoever writes this expects no other tensors than those that he made."""
    weight = adapted.base.weight + adapted.up["default"].weight @ adapted.down["default"].weight
    plain = nn.Linear(weight.shape[1], weight.shape[0])
    plain.load_state_dict({"weight": weight.detach(), "bias": adapted.base.bias.detach()})
    return plain


class OwnLinear(nn.Linear):
    """A class that calculates with its weight itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def network(second: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), second(), nn.ReLU(), nn.Linear(16, 3)).eval()


def adapted() -> nn.Module:
    return network(lambda: Adapted(nn.Linear(16, 16)))


def plain() -> nn.Module:
    return network(lambda: nn.Linear(16, 16, bias=False))


@pytest.mark.parametrize("options", [{}, {"ablation": "zero"}, {"skip": "2.down*"}, {"repair": None}])
def test_an_adapter_can_be_merged_after_the_cut(options: Any) -> None:
    small: Any = sc.prune(adapted(), X, {"params": 0.6}, by="l1", progress=False, **options).model
    before = small(X)
    assert {name for name, _ in small[2].named_parameters() if "bias" in name} == {"base.bias"}
    small[2] = merged(small[2])
    assert torch.allclose(small(X), before, atol=1e-5)


def test_new_biases_are_named() -> None:
    result = sc.prune(plain(), X, {"params": 0.6}, by="l1", progress=False)
    assert result.plan.new_biases == result.report.new_biases == ("2.bias",)
    assert "2.bias" in dict(result.model.named_parameters())
    for text in (str(result.plan), str(result.report), result.report.to_html()):
        assert "iases that are new, for the means of removed units: 2.bias" in text
    assert json.loads(result.report.to_json())["new_biases"] == ["2.bias"]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (plain, {"new_biases": False}),
        (plain, {"ablation": "zero"}),
        (plain, {"only": "2"}),
        (lambda: network(lambda: OwnLinear(16, 16, bias=False)), {}),
    ],
)
def test_prune_adds_no_biases_without_new_biases(make: Any, options: Any) -> None:
    model = make()
    result = sc.prune(model, X, {"units": 0.6}, by="l1", progress=False, **options)
    assert result.plan.new_biases == ()
    assert "biases that are new" not in str(result.report)
    assert dict(result.model.named_parameters()).keys() == dict(model.named_parameters()).keys()


def test_a_network_traced_without_new_biases_costs_what_it_says() -> None:
    model = plain()
    traced = sc.trace(model, X, new_biases=False)
    plan = sc.plan(traced, sc.score(traced, X, by="l1", progress=False), {"units": 0.5})
    small = sc.cut(model, plan)
    assert sum(parameter.numel() for parameter in small.parameters()) == plan.cost.params


@pytest.mark.parametrize("allowed", [True, False])
def test_comparisons_with_and_without_new_biases(allowed: bool) -> None:
    plans: list[sc.Plan] = []

    def noted(planner: Callable[..., sc.Plan]) -> Callable[..., sc.Plan]:
        def call(*args: Any, **options: Any) -> sc.Plan:
            plans.append(planner(*args, **options))
            return plans[-1]

        return call

    planners = {name: noted(getattr(trials, name)) for name in ("choose_plan", "plan_tied_sizes")}
    with patch.multiple(trials, **planners):
        sc.compare(plain(), X, by=("l1",), keep={"units": 0.6}, repair=None, new_biases=allowed, progress=False)
    assert plans and all((plan.new_biases == ("2.bias",)) is allowed for plan in plans)
