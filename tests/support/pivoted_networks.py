"""A network of linear layers for pivoting."""

import torch
from torch import Tensor, nn


class PivotedLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(40, 36), nn.Linear(36, 30, bias=False), nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))
