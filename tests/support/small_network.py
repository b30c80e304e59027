"""A convolutional network of two groups, and batches for it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(10, 3, 6, 6, generator=generator), torch.randint(0, 4, (10,), generator=generator))
        for _ in range(count)
    ]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.fc = nn.Conv2d(5, 6, 3), nn.Linear(6, 4)

    def sites(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.relu(self.bn(self.conv1(x)))
        b = F.relu(self.conv2(a)).mean((2, 3))
        return a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.sites(x)[1])
