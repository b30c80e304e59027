"""Checks leave what a forward writes to as it was, whatever the caller's modes are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from checked_examples import CLASSES, EXAMPLES, CheckedNetwork, prune_quickly
from expected_warnings import untrained_networks

pytestmark = untrained_networks


class Writing(nn.Module):
    """A network whose forward writes to what is not its own."""

    def __init__(self, to: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.to = nn.Linear(6, 12), nn.Linear(12, 3), to
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.to == "input":
            F.relu(x, inplace=True)
        if self.to == "parameter":
            with torch.no_grad():
                self.first.weight.mul_(0.9)
        if self.to == "data":
            self.first.weight.data.mul_(0.9)
        if self.to == "memory":
            self.first.weight.data = torch.renorm(self.first.weight.data, 2, 0, 0.3)
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


@pytest.mark.parametrize("to", ["input", "parameter", "data", "memory"])
def test_what_a_forward_writes_to_is_left_as_it_was(to: str) -> None:
    model, x = Writing(to), EXAMPLES.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memory = model.first.weight.data_ptr()
    try:
        result = prune_quickly(model, [(x, CLASSES)], by="obs", repair=["refit", "tune"], tuning={"steps": 2})
        sc.compare(model, x, by=("taylor", "l2"), keep={"units": 0.5}, progress=False)
        sc.repair(sc.cut(model, result.plan), model, result.plan, x, progress=False)
    except sc.SecateurError:
        assert to in ("data", "memory")  # torch can't export these
    assert torch.equal(x, EXAMPLES)
    assert model.first.weight.data_ptr() == memory
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("mode", "by"), [(torch.no_grad, "taylor"), (torch.inference_mode, "obs"), (torch.inference_mode, "shapley")]
)
def test_the_callers_mode_changes_nothing(mode: Any, by: str) -> None:
    model = CheckedNetwork()
    expected = prune_quickly(model, [(EXAMPLES, CLASSES)], by=by)
    with mode():
        result = prune_quickly(model, [(EXAMPLES.clone(), CLASSES.clone())], by=by)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), expected.model.parameters(), strict=True))
    result.model(EXAMPLES).sum().backward()
