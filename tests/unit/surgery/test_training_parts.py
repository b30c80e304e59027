"""Parts of a model that run in training mode alone, and parts that never run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.surgery.training_parts import idle_modules
from secateur.surgery.trial_cut import TrialCutter


class DeepSupervision(nn.Module):
    """A head between two layers, with a batch norm of its own, that training mode asks for; and one that nothing calls.

    Args:
        targets: whether training mode takes targets, which no example has.
    """

    def __init__(self, targets: bool = False) -> None:
        super().__init__()
        self.targets = targets
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)
        self.aux = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
        self.unused = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if self.training and self.targets and targets is None:
            raise ValueError("targets are missing")
        x = F.silu(self.first(x))
        y = self.last(F.silu(self.second(x)))
        return (y, self.aux(x)) if self.training else y


def test_what_training_mode_reads_is_frozen_with_the_reason_and_the_model_is_unchanged() -> None:
    model = DeepSupervision().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = sc.trace(model, torch.randn(8, 4))
    assert [group.name for group in network.groups] == ["second"]
    reasons = {frozen.name: frozen.reason for frozen in network.frozen}
    assert reasons["first"] == "aux.0 reads these units in training mode alone, and is not cut"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    model.aux = nn.Identity()
    assert len(sc.trace(model, torch.randn(8, 4)).groups) == 2


def test_a_model_that_wants_more_than_the_example_to_train_on_is_cut_as_it_runs() -> None:
    network = sc.trace(DeepSupervision(targets=True), torch.randn(8, 4))
    assert [group.name for group in network.groups] == ["first", "second"]


def test_idle_modules_are_the_outermost() -> None:
    model = DeepSupervision().eval()
    assert idle_modules(model, sc.trace(model, torch.randn(8, 4)).program) == ["aux", "unused"]


def test_nothing_runs_in_training_mode_where_all_parameters_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("ran in training mode")

    monkeypatch.setattr(TrialCutter, "failure_in_training", fail)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 2))
    model[0].register_forward_pre_hook(lambda module, _: fail() if module.training else None)
    assert len(sc.trace(model, torch.randn(8, 4)).groups) == 1
