"""Attention whose code lays out heads, or computes their width, in its own way."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HeadsOutside(nn.Module):
    """Heads laid side by side along the batch, in front of the examples, and divided again by the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.last = nn.Linear(6, 36), nn.Linear(12, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.cat(projection.split(3, -1)) for projection in self.qkv(x).chunk(3, -1))
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.last(F.silu(self.out(torch.cat(y.split(len(x)), -1)))).mean(1)


class WidthOfInput(nn.Module):
    """Heads whose width the code computes from the width of what they read, by a number of heads that is written out.

    The input can be cut where heads are not, and then the code computes another width than its layers have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.embed(x))
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, x.shape[-1] // 4).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.last(F.silu(self.out(y.transpose(1, 2).flatten(2)))).mean(1)
