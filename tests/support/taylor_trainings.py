"""Trainings of a small network with a schedule of removals."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from secateur.training.taylor_schedule import TaylorSchedule
from small_network import Small, batches


def network_and_optimizer(seed: int = 3, **options: Any) -> tuple[Small, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Small()
    return model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3, **options)


def train_with_schedule(
    model: nn.Module, optimizer: torch.optim.Optimizer, schedule: TaylorSchedule, most: int = 100
) -> int:
    for step in range(most):
        if schedule.is_finished:
            return step
        x, y = batches()[step % 3]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return most


def nothing_summed(schedule: TaylorSchedule) -> bool:
    return not any(bool(total.any()) for total in schedule.state_dict()["sums"].values())
