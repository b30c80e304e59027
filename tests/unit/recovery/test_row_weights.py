"""Rows of a residual stream that are much larger than the others don't decide a refit alone."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.conversion import as_batches
from secateur.importance.context import network_microbatches
from secateur.recovery import row_weights
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.reconstruction_layers import reconstruction_blocks
from secateur.recovery.reconstruction_terms import SharedTargets
from secateur.recovery.regression_rows import RegressionRows
from secateur.surgery.recipe import recipe_of

pytestmark = untrained_networks

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


def _repaired_error(model: nn.Module, data: Tensor, test: Tensor, how: str) -> float:
    network = sc.trace(model, data[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6}, allocation="uniform")
    small = sc.cut(model, plan)
    sc.repair(small, model, plan, data, how, progress=False)
    return _error(model, small, test)


@pytest.mark.parametrize("how", ["refit", "adapt"])
def test_the_other_tokens_are_nearer_with_weights(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Stream().eval()
    data, test = torch.randn(2, 64, TOKENS, WIDTH)
    weighted = _repaired_error(model, data, test, how)
    monkeypatch.setattr(row_weights, "LARGEST", float("inf"))
    assert weighted < 0.8 * _repaired_error(model, data, test, how)


def _problem(model: nn.Module, data: Tensor) -> BlockProblem:
    """The problem of the first block's layers, in a cut network."""
    network = sc.trace(model, data[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6}, allocation="uniform")
    cut_network = EmbeddedPrunedNetwork.of(sc.cut(model, plan), network, recipe_of(model, plan))
    block = next(iter(reconstruction_blocks(network)))
    choices = [PrunedLayer.of(layer, cut_network) for layer in (*block.producers, *block.consumers)]
    layers = [pruned_layer for pruned_layer in choices if pruned_layer is not None]
    execution = PairedExecution(cut_network, network_microbatches(network, as_batches(data)))
    shared = SharedTargets(network, block.consumers, execution.microbatches)
    return BlockProblem(execution, layers, block.consumers, shared)


@torch.no_grad()
def test_slopes_are_those_of_the_weighted_error() -> None:
    """Half the weighted squared error falls along the slopes by what they say."""
    torch.manual_seed(0)
    problem = _problem(Stream().double().eval(), torch.randn(16, TOKENS, WIDTH).double())
    assert any(factor is not None and float(factor.min()) < 0.1 for factor in problem.terms[0].factors)
    at = [torch.randn(layer.shape).double() / 100 for layer in problem.pruned_layers]
    direction = [torch.randn(layer.shape).double() for layer in problem.pruned_layers]
    _, _, slopes = problem._slopes(at)
    predicted = -2 * sum(float((slope * step).sum()) for slope, step in zip(slopes, direction, strict=True))
    length = 1e-6
    ahead, behind = (
        problem._squared_error([value + sign * length * step for value, step in zip(at, direction, strict=True)])
        for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * length) == pytest.approx(predicted, rel=1e-4)


def test_a_weighted_row_is_the_row_times_its_factor() -> None:
    torch.manual_seed(0)
    tensors = torch.randn(4, 1, 3, 2).unbind()
    rows = RegressionRows(*tensors, torch.tensor([True, False, True]), torch.tensor([1.0, 0.5, 0.25]))
    weighted = rows.with_weights()
    for before, after in zip(
        tensors, (weighted.features, weighted.targets, weighted.lower, weighted.upper), strict=True
    ):
        assert torch.equal(after, before * torch.tensor([1.0, 0.5, 0.25])[:, None])
    assert weighted.factors is None
