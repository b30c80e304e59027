"""Networks whose own code writes sizes down: in attributes of any name, in functions, or as plain numbers."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HeadCount(nn.Module):
    """Attention that keeps its number of heads under a name of its own and leaves the head's width to torch."""

    def __init__(self) -> None:
        super().__init__()
        self.h = 4
        self.inp, self.qkv, self.o = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.h, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1)
        return self.out(x + self.o(y))


class Padding(nn.Module):
    """A shortcut that calls a function of its input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class AuxiliaryHead(nn.Module):
    """A head that runs in training mode alone, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 4, 3)
        self.aux, self.head = nn.Sequential(nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 2)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.silu(self.second(F.silu(self.first(x))))
        y = self.head(F.silu(self.third(x)).mean((2, 3)))
        return (y, self.aux(x.mean((2, 3)))) if self.training else y


class Distances(nn.Module):
    """An attribute with the name of a width that counts constants: as many as the channels, but no channels."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.conv, self.embed, self.place = nn.Conv1d(3, 6, 3), nn.Linear(24, 5), nn.Linear(6, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(torch.relu(self.conv(x)).flatten(1))
        sines = torch.arange(self.width, dtype=torch.float32, device=x.device).sin()
        return self.last(torch.tanh(y + self.place(sines)))


def widened(x: Tensor, extra: int) -> Tensor:
    """Every other pixel, with channels of zeros on both sides."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))


class PaddedBlock(nn.Module):
    """A residual block whose shortcut takes every other pixel and adds channels of zeros on both sides."""

    def __init__(self, channels_in: int, channels_out: int, in_function: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2, self.bn2 = nn.Conv2d(channels_out, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out)
        extra = (channels_out - channels_in) // 2
        self.extra = extra
        if in_function:
            self.shortcut = Padding(partial(widened, extra=extra))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.silu(self.bn1(self.conv1(x)))))
        if hasattr(self, "shortcut"):
            return F.silu(y + self.shortcut(x))
        return F.silu(y + widened(x, self.extra))


class PaddedShortcuts(nn.Module):
    """Stages that are widened by zeros alone, as in residual networks for small images."""

    def __init__(self, in_function: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.stages = nn.Sequential(PaddedBlock(4, 8, in_function), PaddedBlock(8, 14, in_function))
        self.last = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.stages(F.silu(self.stem(x))).mean((2, 3)))


PADDED_GROUPS = {
    "stem": 4, "stages.0.conv1": 8, "stages.0.conv2": 4, "stages.1.conv1": 14, "stages.1.conv2": 6,
}  # fmt: skip


class Cropped(nn.Module):
    """Padding that takes channels away, and one with channels of a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.rest = nn.Conv2d(3, 8, 3), nn.Conv2d(5, 6, 1), nn.Conv2d(8, 2, 1)
        self.last = nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        y = torch.tanh(self.mix(F.pad(x, (0, 0, 0, 0, -1, -2))))
        return self.last(F.pad(y, (0, 0, 0, 0, 1, 2), value=0.5)) + self.rest(x)


def divided(x: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The first features, and the others."""
    return x[:, :first], x[:, first:]


class Activated(nn.Module):
    """A layer whose own code counts nothing."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features_in, features_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(x))


class Divided(nn.Module):
    """A count that only this module's code holds, while what fails without it is a module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.divide = partial(divided, first=5)
        self.upper, self.lower = Activated(5, 4), Activated(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = self.divide(x)
        return self.upper(first) * self.lower(rest)


class MixedPositions(nn.Module):
    """A parameter in front of what it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(6, 5), nn.Linear(7, 3)
        self.mix = nn.Parameter(torch.randn(7, 5) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc(x)).unsqueeze(-1)
        return self.last(torch.tanh(self.mix @ x).squeeze(-1))
