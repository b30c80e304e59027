"""A network for SPP, and its training in steps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.spp.spp import SPP


class ColumnNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm, self.third, self.fc = nn.BatchNorm2d(12), nn.Conv2d(12, 6, 3, stride=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.second(F.relu(self.first(x)))))
        return self.fc(F.relu(self.third(x)).mean((2, 3)))


def start_spp(seed: int = 0, **options: Any) -> tuple[ColumnNetwork, torch.optim.Optimizer, SPP]:
    torch.manual_seed(seed)
    model = ColumnNetwork()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
    settings = {"keep": {"columns": 0.5}, "every": 2, **options}
    return model, optimizer, SPP(model, torch.randn(2, 1, 9, 9), optimizer, **settings)


def train_in_portions(
    model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int, portions: int = 1
) -> None:
    for step in range(first, last):
        draws = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 1, 9, 9, generator=draws), torch.randint(0, 4, (8,), generator=draws)
        optimizer.zero_grad()
        for inputs, labels in zip(x.chunk(portions), y.chunk(portions), strict=True):
            (F.cross_entropy(model(inputs), labels) / portions).backward()
        optimizer.step()


def train_to_the_end(model: nn.Module, optimizer: torch.optim.Optimizer, spp: SPP) -> int:
    step = 0
    while not spp.is_finished and step < 1000:
        train_in_portions(model, optimizer, step, step + 1)
        step += 1
    return step


def macs_of(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds by the weights that are not zero, counted at each layer's result."""
    counts = []

    def count(module: Any, _: Any, result: Tensor) -> None:
        positions = result[0, 0].numel() if result.dim() == 4 else 1
        counts.append(int((module.weight != 0).sum()) * positions)

    hooks = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(counts)


class StreamedBlock(nn.Module):
    """A block on a stream, whose sum only the head reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(x + self.second(self.first(x).relu())).mean((2, 3))
