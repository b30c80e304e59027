"""Rows of a residual stream that are much larger than the others don't decide a refit alone."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.recovery import row_weights
from secateur.recovery.regression_rows import RegressionRows

WIDTH, TOKENS = 12, 16


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stream(nn.Module):
    """Blocks on tokens; the first block makes the first token of each sequence a thousand times larger."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(nn.Identity()), Block(nn.LayerNorm(WIDTH))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5))
        self.register_buffer("scale", torch.cat([torch.tensor([1000.0]), torch.ones(TOKENS - 1)])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x * self.scale)))


def _error(model: nn.Module, small: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - small(x))[:, 1:].square().mean())


def _refitted_error(model: nn.Module, data: Tensor, test: Tensor) -> float:
    network = sc.trace(model, data[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6}, allocation="uniform")
    small = sc.cut(model, plan)
    sc.repair(small, model, plan, data, "refit", progress=False)
    return _error(model, small, test)


def test_the_other_tokens_are_nearer_with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Stream().eval()
    data, test = torch.randn(2, 64, TOKENS, WIDTH)
    weighted = _refitted_error(model, data, test)
    monkeypatch.setattr(row_weights, "LARGEST", float("inf"))
    assert weighted < 0.8 * _refitted_error(model, data, test)


def test_a_weighted_row_is_the_row_times_its_factor() -> None:
    torch.manual_seed(0)
    tensors = torch.randn(4, 1, 3, 2).unbind()
    rows = RegressionRows(*tensors, torch.tensor([True, False, True]), torch.tensor([1.0, 0.5, 0.25]))
    weighted = rows.weighted()
    for before, after in zip(
        tensors, (weighted.features, weighted.missing, weighted.least, weighted.most), strict=True
    ):
        assert torch.equal(after, before * torch.tensor([1.0, 0.5, 0.25])[:, None])
    assert weighted.factors is None
