"""Networks for LEAN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UnpaddedTower(nn.Module):
    """Convolutions without padding, so that what a dead channel leaves is the same everywhere."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(1, 6, 3, bias=not norm), nn.Conv2d(6, 6, 3, bias=not norm)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)] if norm else [nn.Identity(), nn.Identity()])
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))))
