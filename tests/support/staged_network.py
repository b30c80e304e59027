"""A network of stages, each with one gate that can be read from outside, and minibatches for it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Gate = Callable[[str, Tensor], Tensor]


def identity(name: str, x: Tensor) -> Tensor:
    return x


class Block(nn.Module):
    """A basic block whose stage has one gate behind every block; a shortcut with a projection where the width grows."""

    def __init__(self, width_in: int, width: int, stage: str, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width_in, width + 1, 3, padding=1, bias=False), nn.BatchNorm2d(width + 1)
        self.conv2, self.bn2 = nn.Conv2d(width + 1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.stage, self.activation, self.gate = stage, activation, identity

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(f"inner {id(self)}", self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(F.relu(y)))
        return self.gate(self.stage, self.activation(y + self.shortcut(x)))


class Stages(nn.Module):
    """A stem, two stages of two blocks, pooling between and behind, and a head."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem, self.bn = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.one = nn.Sequential(*(Block(5, 5, "one", activation) for _ in range(2)))
        self.two = nn.Sequential(Block(5, 7, "two", activation), Block(7, 7, "two", activation))
        self.fc = nn.Linear(7, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                nn.init.normal_(module.running_mean, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(F.max_pool2d(F.relu(self.bn(self.stem(x))), 2))
        x = self.two(F.avg_pool2d(F.dropout(x, 0.0, self.training), 2))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def minibatches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(6, 3, 8, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator))
        for _ in range(count)
    ]
