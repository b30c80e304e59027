"""A network for unification, and its training in steps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.unification.unification import Unification


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class UnifiedNetwork(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 7, 3)
        self.norm, self.third, self.fc = nn.BatchNorm2d(7), nn.Conv2d(7, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.third(F.relu(self.norm(self.second(F.relu(self.first(x)))))))
        return self.fc(x.mean((2, 3)))


def start_unification(
    seed: int = 0, make: Any = torch.optim.Adam, **options: Any
) -> tuple[UnifiedNetwork, torch.optim.Optimizer, Unification]:
    model = UnifiedNetwork(seed)
    optimizer = make(model.parameters(), 0.01)
    return model, optimizer, Unification(model, optimizer, **{"every": 3, "shape": (2, 4), **options})


def train_steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        draws = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 1, 10, 10, generator=draws), torch.randint(0, 4, (8,), generator=draws)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
