"""A network that enlarges its maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TransposedDecoder(nn.Module):
    """A transposed convolution between two convolutions."""

    def __init__(self, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(1, 4, 3)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=groups, bias=bias)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(F.relu(self.up(F.relu(self.first(x)))))
        return result
