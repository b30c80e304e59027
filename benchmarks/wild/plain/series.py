"""Networks for time series: N-BEATS, the temporal convolutional network, PatchTST."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class NBeatsBlock(nn.Module):
    """Four linear layers, and coefficients of one basis for what was seen and one for what is to come.

    Args:
        seen: length of the window that is given.
        horizon: length of the forecast.
        hidden: width of the four layers.
        basis: the functions over both, (functions, seen + horizon); None: learned.
    """

    def __init__(self, seen: int, horizon: int, hidden: int, basis: Tensor | None) -> None:
        super().__init__()
        self.seen = seen
        widths = (seen, hidden, hidden, hidden, hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        count = 6 if basis is None else len(basis)
        self.backcast_coefficients = nn.Linear(hidden, count, bias=basis is None)
        self.forecast_coefficients = nn.Linear(hidden, count, bias=basis is None)
        if basis is None:
            self.basis: Tensor = nn.Parameter(torch.randn(count, seen + horizon) * 0.3)
        else:
            self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = F.relu(layer(x))
        backcast = self.backcast_coefficients(x) @ self.basis[:, : self.seen]
        return backcast, self.forecast_coefficients(x) @ self.basis[:, self.seen :]


def _trend(length: int, degree: int = 3) -> Tensor:
    time = torch.linspace(-1, 1, length)
    return torch.stack([time**power for power in range(degree + 1)])


def _seasons(length: int, harmonics: int = 4) -> Tensor:
    angles = 2 * math.pi * torch.arange(harmonics)[:, None] * torch.linspace(0, 1, length)
    return torch.cat([angles.cos(), angles.sin()])


class NBeats(nn.Module):
    """N-BEATS of Oreshkin et al., 2020: residual stacks for trend, seasons and the rest; forecasts add up."""

    def __init__(self, seen: int = 24, horizon: int = 8, hidden: int = 48) -> None:
        super().__init__()
        bases = (_trend(seen + horizon), _seasons(seen + horizon), None)
        self.blocks = nn.ModuleList(NBeatsBlock(seen, horizon, hidden, basis) for basis in bases for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        forecasts = []
        for block in self.blocks:
            backcast, forecast = block(x)
            x = x - backcast
            forecasts.append(forecast)
        return torch.stack(forecasts).sum(0)


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions with normalised weights, and a skip."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation
        self.conv1 = weight_norm(nn.Conv1d(channels_in, channels_out, kernel, 1, self.padding, dilation))
        self.conv2 = weight_norm(nn.Conv1d(channels_out, channels_out, kernel, 1, self.padding, dilation))
        self.dropout = nn.Dropout(0.2)
        self.skip = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.conv1, self.conv2):
            y = self.dropout(F.relu(conv(y)[:, :, : -self.padding].contiguous()))
        return F.relu(y + (x if self.skip is None else self.skip(x)))


class TCN(nn.Module):
    """The temporal convolutional network of Bai et al., 2018; the last step is classified."""

    def __init__(self, channels: int = 5, widths: tuple[int, ...] = (24, 24, 32), classes: int = 6) -> None:
        super().__init__()
        pairs = zip((channels, *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(*(TemporalBlock(a, b, 3, 2**level) for level, (a, b) in enumerate(pairs)))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.blocks(x)[:, :, -1])
        return logits


class PatchTSTLayer(nn.Module):
    """A transformer layer with batch norm over the features, as PatchTST has it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.feedforward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x)[0]
        x = self.norm1(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.feedforward(x)
        y: Tensor = self.norm2(x.transpose(1, 2)).transpose(1, 2)
        return y


class PatchTST(nn.Module):
    """PatchTST of Nie et al., 2023: every channel by itself, overlapping patches as tokens, instance norm around."""

    def __init__(self, seen: int = 48, horizon: int = 12, patch: int = 8, stride: int = 4, width: int = 32) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        patches = (seen - patch) // stride + 2
        self.embed = nn.Linear(patch, width)
        self.positions = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.layers = nn.ModuleList(PatchTSTLayer(width, 4, 64) for _ in range(2))
        self.head = nn.Linear(width * patches, horizon)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, channels = x.shape
        mean, scale = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-5
        x = ((x - mean) / scale).permute(0, 2, 1)  # (B, channels, time)
        x = F.pad(x, (0, self.stride), mode="replicate").unfold(-1, self.patch, self.stride)
        tokens = self.embed(x).flatten(0, 1) + self.positions  # (B channels, patches, width)
        for layer in self.layers:
            tokens = layer(tokens)
        forecast = self.head(tokens.flatten(1)).view(batch, channels, -1).permute(0, 2, 1)
        return forecast * scale + mean
