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


class LinearAttention(nn.Module):
    """Attention without softmax: a column of ones beside the values sums the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.qkv, self.mix, self.out = nn.Conv2d(5, 36, 1), nn.Conv2d(36, 36, 1, groups=9), nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        heads = torch.cat([qkv, self.mix(qkv)], 1).reshape(batch, -1, 3 * self.width, height * width).transpose(-1, -2)
        q, k, v = heads.chunk(3, -1)
        q, k, v = F.relu(q) + 0.1, F.relu(k) + 0.1, F.pad(v, (0, 1), value=1.0)
        y = q @ (k.transpose(-1, -2) @ v)
        y = y[..., :-1] / y[..., -1:]
        return self.out(y.transpose(-1, -2).reshape(batch, -1, height, width))
