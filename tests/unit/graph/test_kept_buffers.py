"""Buffers and other tensors that a model's own code changes are as they were afterwards."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.graph.contexts import isolated_evaluation


class CallCounter(nn.Module):
    """A model that counts its calls in a buffer, which it then replaces, and scales by an expanded buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("scales", torch.full((1, 1), 0.5).expand(1, 8))
        self.seen = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.calls = self.calls.clone()
        return self.b(self.a(x) * self.scales)


def test_buffers_that_the_code_changes_and_then_replaces_are_restored() -> None:
    model = CallCounter().eval()
    calls, scales = model.calls, model.scales
    network = sc.trace(model, torch.randn(3, 5))
    sc.cut(model, sc.plan(network, sc.score(network, by="l1"), keep={"units": 0.5}))
    assert model.calls is calls
    assert model.scales is scales
    assert float(calls) == 0


def test_tensors_that_are_plain_attributes_are_restored() -> None:
    model = CallCounter()
    with isolated_evaluation(model):
        model.seen += 1
    assert float(model.seen) == 0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.full((1,), float("nan")).expand(3),
        torch.empty(3, device="meta"),
    ],
    ids=["sparse", "expanded", "meta"],
)
def test_tensors_of_any_kind_may_be_plain_attributes(tensor: Tensor) -> None:
    model = CallCounter()
    model.table = tensor
    with isolated_evaluation(model):
        model.seen += 1
    assert model.table is tensor
    assert float(model.seen) == 0


def test_an_expanded_buffer_that_the_code_changes_is_restored() -> None:
    model = CallCounter()
    with isolated_evaluation(model):
        model.scales[:, :1].fill_(2)
    assert torch.equal(model.scales, torch.full((1, 8), 0.5))
    assert model.scales.stride(1) == 0
