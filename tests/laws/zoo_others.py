"""Recurrent layers, experts, computed weights, and code that knows its own sizes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


class Recurrent(nn.Module):
    """Two layers, both directions; the last state and the outputs are both used."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.first, self.layers = nn.Linear(4, 7), kind(7, 6, 2, batch_first=True, bidirectional=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.layers(F.silu(self.first(x)))
        state = state[0] if isinstance(state, tuple) else state
        return self.last(y.mean(1) + torch.cat([state[-2], state[-1]], 1))


class Cells(nn.Module):
    """Cells called step by step, from states that they make themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(4, 5), nn.GRUCell(5, 6), nn.RNNCell(6, 7)
        self.last = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, hidden, y = None, None, None
        for step in range(3):
            state = self.lstm(x[:, step], state)
            hidden = self.gru(state[0], hidden)
            y = self.rnn(hidden, y)
        return self.last(y)


class Pairing(nn.Module):
    """A bilinear layer between two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.pair = nn.Linear(4, 5), nn.Linear(3, 6), nn.Bilinear(5, 6, 7)
        self.last = nn.Linear(7, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.last(F.silu(self.pair(F.silu(self.left(first)), F.silu(self.right(second)))))


class Warp(nn.Module):
    """Feature maps sampled where another branch says."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.flow, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 2, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.tanh(self.flow(x)).permute(0, 2, 3, 1)
        return self.last(F.grid_sample(F.silu(self.features(x)), grid, align_corners=False))


def computed_weights() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 6, 3)),
        nn.SiLU(),
        parametrizations.spectral_norm(nn.Conv2d(6, 7, 3)),
        nn.SiLU(),
        weight_norm(nn.Conv2d(7, 5, 1)),
        nn.SiLU(),
        spectral_norm(nn.Conv2d(5, 8, 1)),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 3),
    )


class FrozenNorm(nn.Module):
    """A batch norm spelled out with four buffers, as detectors have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "variance"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        bias = self.bias - self.mean * scale
        return x * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


class Experts(nn.Module):
    """Experts as stacks of weights, mixed by a softmax: whole experts go, and the same neuron of every expert."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.gate, self.embed = 3, nn.Linear(5, 3), nn.Linear(5, 8)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 6) / 3), nn.Parameter(torch.randn(3, 6, 8) / 3)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)  # (batch, experts)
        outputs = self.embed(x).unsqueeze(0).expand(self.experts, -1, -1)  # (experts, batch, width)
        outputs = torch.bmm(F.silu(torch.bmm(outputs, self.up)), self.down)
        return self.last((outputs * weights.t().unsqueeze(-1)).sum(0))


class Routed(nn.Module):
    """The best two of three experts for each token, each a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.embed = nn.Linear(5, 3), nn.Linear(5, 8)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 8)) for _ in range(3))
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        x = self.embed(x)
        total = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            share = torch.where(chosen == number, weights, 0.0).sum(-1, keepdim=True)
            total = total + share * expert(x)
        return self.last(x + total)


class UnequalParts(nn.Module):
    """A split whose sizes the module keeps in a list, and a view whose size it keeps in a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.parts = nn.Conv2d(3, 9, 1), [4, 3, 2]
        self.a, self.b, self.c = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1)
        self.planes, self.last = 4, nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.split(F.silu(self.conv(x)), self.parts, 1)
        x = F.silu(self.a(a) + self.b(b) + self.c(c))
        return self.last(x.view(x.shape[0], self.planes, 36).flatten(1))


class SelectiveKernels(nn.Module):
    """Two branches weighted against each other by a softmax for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 5, padding=2)
        self.squeeze, self.select, self.last = nn.Linear(6, 4), nn.Linear(4, 12), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([F.silu(self.small(x)), F.silu(self.large(x))], 1)
        weights = self.select(F.silu(self.squeeze(branches.sum(1).mean((2, 3))))).unflatten(1, (2, -1)).softmax(1)
        return self.last((branches * weights[..., None, None]).sum(1).mean((2, 3)))


class Buffers(nn.Module):
    """A mask over channels and a running template that must shrink with them, and part of a tensor written anew."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
        self.register_buffer("mask", (torch.arange(8) != 2).float())
        self.register_buffer("template", torch.randn(8, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x)) * self.mask[:, None, None] + self.template
        x[:, :, 0] = x[:, :, 1] * 0.5
        return self.last(torch.cumsum(x, 3).mean((2, 3)))


@dataclass
class Output:
    scores: Tensor
    extra: Tensor | None


torch.export.register_dataclass(Output)


class Outputs(nn.Module):
    """A dataclass as output, an input that may be None, and a nested dict as another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, others: dict[str, list[Tensor]], bias: Tensor | None = None) -> Output:
        x = F.silu(self.first(x) + self.second(others["seen"][0]))
        return Output(self.last(x if bias is None else x + bias), x.mean(-1))


class Low(nn.Module):
    """Sixteen bits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.norm(self.conv(x))).mean((2, 3)))


class Repeats(nn.Module):
    """Channels repeated by `repeat`, `tile` and `repeat_interleave`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide = nn.Conv2d(3, 4, 3), nn.Conv2d(24, 5, 1)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        x = torch.cat([x.repeat(1, 2, 1, 1), x * 0.5], 1) + x.tile(3, 1, 1) * 0.1
        return self.last(F.silu(self.wide(x.repeat_interleave(2, 1))).mean((2, 3)))


class Blocks(nn.Module):
    """Blocks whose skip is the identity, and one that changes the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.widen = nn.Linear(5, 6), nn.Linear(6, 8)
        self.first = nn.ModuleList(Branch(6) for _ in range(2))
        self.second = nn.ModuleList(Branch(8) for _ in range(2))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.first:
            x = block(x)
        x = self.widen(x)
        for block in self.second:
            x = block(x)
        return self.last(x)


class NarrowingBlock(nn.Module):
    """A residual block of convolutions, narrower within than its stream."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.strength = nn.Parameter(torch.tensor(0.8))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.strength * self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class BlocksAndChannels(nn.Module):
    """Residual blocks that may go whole or lose channels, around a convolution that changes the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.widen = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 7, 3, stride=2)
        self.first = nn.Sequential(NarrowingBlock(6, 5), NarrowingBlock(6, 4))
        self.second = NarrowingBlock(7, 5)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.widen(self.first(F.relu(self.stem(x)))))
        return self.last(self.second(x).mean((2, 3)))


class Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 7), nn.Linear(7, width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(F.silu(self.up(self.norm(x))))
        return x + torch.tanh(self.mix(x))


class PooledByHand(nn.Module):
    """Sums over space divided by its size, an upsampled path joined at the input's size, and a view of that length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.join, self.fc = nn.Conv2d(11, 7, 1), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.interpolate(F.relu(self.deep(x)), size=x.shape[-2:])
        z = F.relu(self.join(torch.cat([x, y], 1)))
        return self.fc(z.view(z.shape[0], 7, -1).sum(2) / (z.shape[2] * z.shape[3]))
