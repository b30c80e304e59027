"""Tensors that a model's own code computes in evaluation mode, and keeps in a dict or in a buffer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class Scaled(nn.Module):
    """A layer whose result is scaled by a parameter, which evaluation mode keeps in a dict; and by fixed tensors.

    Args:
        fixed: tensors in a dict that no code fills.
    """

    def __init__(self, fixed: dict[str, Tensor]) -> None:
        super().__init__()
        self.first, self.scale, self.last = nn.Linear(4, 6), nn.Parameter(torch.rand(6) + 0.5), nn.Linear(6, 2)
        self.cache: dict[str, Tensor] = {}
        self.fixed = fixed

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            return self.last(x * self.scale.exp())
        if "scale" not in self.cache:
            self.cache["scale"] = self.scale.exp()
        x = x * self.cache["scale"]
        return self.last(x * self.fixed["factor"] if self.fixed else x)


class Retrained(Scaled):
    """The same, emptying the dict where training begins, as LeViT and its successors do."""

    def train(self, mode: bool = True) -> "Retrained":
        """Set the mode."""
        if mode:
            self.cache = {}
        super().train(mode)
        return self


@pytest.mark.parametrize("with_gradients", [False, True])
def test_a_model_that_has_run_is_cut_as_a_new_one_is(with_gradients: bool) -> None:
    model, x = Scaled({}).eval(), torch.randn(8, 4)
    with torch.set_grad_enabled(with_gradients):
        model(x)
    kept = model.cache["scale"]
    network = sc.trace(model, x)
    assert {group.name: group.size for group in network.groups} == {"first": 6}
    result = sc.prune(model, [x], {"macs": 0.5}, by="l2", repair=None, allocation="uniform")
    assert model.cache["scale"] is kept
    assert result.model(x).shape == (8, 2)
    assert result.model.cache["scale"].shape == (3,)
    small = sc.cut(model, sc.plan(network, sc.score(network, by="l2"), {"macs": 0.5}), inplace=True)
    assert small is model
    assert small(x).shape == (8, 2)


def test_tensors_that_no_code_fills_are_left_alone() -> None:
    factor = torch.rand(6)
    model = Scaled({"factor": factor}).eval()
    with torch.no_grad():
        model(torch.randn(8, 4))
    network = sc.trace(model, torch.randn(8, 4))
    assert network.program.caches == (("", "cache"),)
    assert model.fixed["factor"] is factor
    assert not network.groups  # a plain tensor can't be cut


def test_a_model_that_has_run_is_loaded_onto_as_a_new_one_is(tmp_path: Path) -> None:
    model, x = Retrained({}).eval(), torch.randn(8, 4)
    result = sc.prune(model, [x], {"macs": 0.5}, by="l2", repair=None, allocation="uniform")
    result.save(tmp_path)
    used = Retrained({}).eval()
    with torch.no_grad():
        used(x)
        loaded = sc.load(used, tmp_path)
        assert torch.equal(loaded(x), result.model(x))
    assert not loaded.training


class Positions(nn.Module):
    """Two layers, with positions between them that the first batch replaces by as many as it has, as ConViT's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("positions", torch.zeros(1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.positions.shape[0] != x.shape[1]:
            self.positions = torch.linspace(0.5, 1, x.shape[1])[:, None]
        return self.last(self.first(x).relu() * self.positions)


@pytest.mark.parametrize("has_run", [False, True])
def test_buffers_that_the_first_batch_replaces(has_run: bool, tmp_path: Path) -> None:
    model, x = Positions().eval(), torch.randn(8, 5, 4)
    if has_run:
        model(x)
    positions = model.positions
    result = sc.prune(model, [x], {"macs": 0.5}, by="l2", repair=None, allocation="uniform")
    assert model.positions is positions
    result.save(tmp_path)
    with torch.no_grad():
        for used in (False, True):
            fresh = Positions().eval()
            if used:
                fresh(x)
            assert torch.equal(sc.load(fresh, tmp_path)(x), result.model(x))
