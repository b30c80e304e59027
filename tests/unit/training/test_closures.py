"""Optimizers that compute gradients within their step, as Lightning has them do: hooks see them all the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.spp.spp import SPP
from secateur.sparsity.unification.unification import Unification
from secateur.training.taylor_schedule import TaylorSchedule

Method = Callable[[nn.Module, torch.optim.Optimizer], Any]
METHODS: dict[str, Method] = {
    "spp": lambda model, optimizer: SPP(model, images(), optimizer, {"columns": 0.5}, every=1),
    "unification": lambda model, optimizer: Unification(model, optimizer, shape=(1, 4), every=2, rho=0.1, only="2"),
    "taylor": lambda model, optimizer: TaylorSchedule(
        model, images(), optimizer, {"macs": 0.6}, every=2, units_per_step=1
    ),
}


def images() -> Tensor:
    return torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def trained(name: str, how: str) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    method = METHODS[name](model, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images()), torch.arange(8) % 3)
        loss.backward()
        return loss

    for _ in range(12):
        if how == "by name":
            assert isinstance(optimizer.step(closure=closure), Tensor)
        elif how == "by place":
            assert isinstance(optimizer.step(closure), Tensor)
        else:
            closure()
            optimizer.step()
    assert method.steps == 12
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("how", ["by name", "by place"])
@pytest.mark.parametrize("name", METHODS)
def test_a_closure_makes_no_difference(name: str, how: str) -> None:
    assert all(torch.equal(one, other) for one, other in zip(trained(name, how), trained(name, "without"), strict=True))
