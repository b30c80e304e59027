"""Operators that torch defines by others, statistics of order, and slices in steps: units pass them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.masking.ablation import run_masked
from secateur.surgery.verify import output_difference

UNITS = 6
OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "swapdims and back": lambda x: x.swapdims(1, 2).swapdims(-1, -2),
    "mH and back": lambda x: x.mH.tanh().mH,
    "ravel and view": lambda x: x.ravel().view(x.shape),
    "tile of a mean": lambda x: x * x.mean(1, keepdim=True).tile(1, 5, 1),
    "flipud of tokens": lambda x: x + x.transpose(0, 1).flipud().transpose(0, 1),
    "atleast_3d, no change": lambda x: torch.atleast_3d(x),
    "hstack of tokens": lambda x: torch.hstack([x, x.tanh()]),
    "dstack and slice": lambda x: torch.dstack([x, x.tanh()])[..., : x.shape[2]],
    "hsplit of tokens": lambda x: x.hsplit(5)[1],
    "outer of ones": lambda x: torch.outer(torch.ones(5), torch.ones(x.shape[2])) * x,
    "take_along_dim by order": lambda x: x.take_along_dim(x.argsort(1), 1),
    "pairwise_distance of tokens": lambda x: F.pairwise_distance(x, x.flip(1), keepdim=True),
    "median of tokens": lambda x: x.median(1, keepdim=True).values * x,
    "kthvalue of tokens": lambda x: x.kthvalue(2, 1, keepdim=True)[0],
    "aminmax of tokens": lambda x: torch.aminmax(x, dim=1, keepdim=True)[1],
    "nansum of tokens": lambda x: x.nansum(1, keepdim=True),
    "special functions": lambda x: torch.special.erf(x) * torch.special.expit(x),
    "a column of ones": lambda x: torch.cat([x, torch.ones_like(x[..., :1])], -1),
    "diff of tokens": lambda x: torch.diff(x, dim=1),
    "feature_alpha_dropout, idle": lambda x: F.feature_alpha_dropout(x, 0.2, False),
}
PAIRED: dict[str, Callable[[Tensor], Tensor]] = {
    "rotation of neighbours": lambda x: x + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2),
    "gate of neighbours": lambda x: x[..., ::2] * x[..., 1::2].sigmoid(),
}


class OperatorBranches(nn.Module):
    """Each operator between two layers of its own, of which the second one is made for what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = {**OPERATORS, **PAIRED}
        self.first = nn.ModuleDict({name: nn.Linear(4, UNITS) for name in self.operators})
        self.last = nn.ModuleDict({name: nn.LazyLinear(2) for name in self.operators})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self.last[name](operator(self.first[name](x).sin())) for name, operator in self.operators.items()}


def assert_cut_equals_masked(model: nn.Module, network: sc.Network, kept: dict[str, Tensor]) -> Any:
    """Cut the model, check that it gives what the masked network gives, and return it."""
    small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
    with torch.no_grad():
        masked = run_masked(network, network.example, network.mask(kept), {})
        worst, allowed = output_difference(small(*network.example.args), masked)
    assert worst <= allowed
    return small


@pytest.mark.parametrize("as_program", [False, True])
def test_units_pass_operators_that_consist_of_others(as_program: bool) -> None:
    torch.manual_seed(0)
    model, x = OperatorBranches().eval(), torch.randn(3, 5, 4)
    model(x)
    network = sc.trace(model, x, as_program=as_program)
    sizes = {group.name: group.size for group in network.groups}
    expected = dict.fromkeys(OPERATORS, UNITS) | dict.fromkeys(PAIRED, UNITS // 2)
    assert sizes == {f"first.{name}": size for name, size in expected.items()}
    assert_cut_equals_masked(model, network, {group.name: torch.arange(1, group.size) for group in network.groups})


@pytest.mark.parametrize("query", [torch.ones(6), nn.Parameter(torch.linspace(-1, 1, 6))], ids=["buffer", "parameter"])
def test_a_product_with_a_vector_reads_the_units(query: Tensor) -> None:
    """Attention pooling: a score for each token, and the mean of the tokens by their scores."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
            if isinstance(query, nn.Parameter):
                self.query = query
            else:
                self.register_buffer("query", query)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).sin()
            shares = torch.softmax(x @ self.query, 1)
            return self.last((shares[..., None] * x).sum(1))

    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(3, 5, 4)
    network = sc.trace(model, x)
    assert {group.name: group.size for group in network.groups} == {"first": 6}
    small = assert_cut_equals_masked(model, network, {"first": torch.tensor([0, 2, 5])})
    assert small.query.shape == (3,)


class Statistics(nn.Module):
    """Attention over space (CBAM) reads maxima and means over channels; norms of any order read their sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.gate = nn.Conv2d(7, 1, 3, padding=1)
        self.first.bias.data -= 3  # the maximum is below the zero of absent units

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        statistics = [x.mean(1), x.max(1)[0], x.amin(1), x.logsumexp(1), x.max(1).values, x.norm(p=1, dim=1)]
        gate = self.gate(torch.stack([*statistics, torch.linalg.vector_norm(x, torch.inf, 1)], 1)).sigmoid()
        return self.last(F.normalize(x, p=3.0, dim=1) * gate)


@pytest.mark.parametrize("units", [[0, 2, 5], [3]])
def test_statistics_over_units_are_those_of_the_units_that_stay(units: list[int]) -> None:
    torch.manual_seed(0)
    model, x = Statistics().eval(), torch.randn(3, 3, 6, 6)
    network = sc.trace(model, x)
    assert {group.name: group.size for group in network.groups} == {"first": 6}
    assert_cut_equals_masked(model, network, {"first": torch.tensor(units)})


@pytest.mark.parametrize("by", ["obs", "taylor", "shapley"])
def test_scores_where_statistics_over_units_are_read_are_finite(by: str) -> None:
    torch.manual_seed(0)
    network = sc.trace(Statistics().eval(), torch.randn(3, 3, 6, 6))
    few = {"coalitions": 8} if by == "shapley" else {}
    data = [torch.randn(4, 3, 6, 6)]
    scores = sc.score(network, data, by=by, loss=lambda y, _: y.square().mean((1, 2, 3)), progress=False, **few)
    assert bool(torch.isfinite(scores["first"].values).all())


def test_a_maximum_whose_position_is_used_keeps_its_units() -> None:
    class Position(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            value, position = self.first(x).max(-1)
            return self.last(torch.stack([value, position.to(value)], -1))

    network = sc.trace(Position().eval(), torch.randn(3, 5, 4))
    assert not network.groups
    assert "is reduced over these units" in {frozen.name: frozen.reason for frozen in network.frozen}["first"]
