"""ESPNet (Mehta et al., 2018) for semantic segmentation: pyramids of dilated convolutions with outputs added up."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

DILATIONS = (1, 2, 4, 8, 16)
CLASSES = 12
EPSILON = 1e-3


class Convolution(nn.Module):
    """A convolution that keeps the size of the image, but for its stride."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = (size - 1) // 2 * dilation
        self.conv = nn.Conv2d(channels_in, channels, size, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class NormedActivation(nn.Module):
    """Batch norm and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(x))
        return y


class NormedConvolution(NormedActivation):
    """A convolution, batch norm and PReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__(channels)
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x))


class Pyramid(nn.Module):
    """Five dilated convolutions of one narrow input; the outputs of the last four are added up one after another."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int) -> None:
        super().__init__()
        width = channels // 5
        self.c1 = Convolution(channels_in, width, size, stride)
        for dilation in DILATIONS:
            outputs = channels - 4 * width if dilation == 1 else width
            self.add_module(f"d{dilation}", Convolution(width, outputs, 3, 1, dilation))

    def combined(self, x: Tensor) -> Tensor:
        """Return the outputs of all dilations, concatenated."""
        narrow = self.c1(x)
        first, total = self.d1(narrow), self.d2(narrow)
        outputs = [first, total]
        for dilation in DILATIONS[2:]:
            total = total + getattr(self, f"d{dilation}")(narrow)
            outputs.append(total)
        return torch.cat(outputs, 1)


class DownSampler(Pyramid):
    """A pyramid at half the resolution."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, 3, 2)
        self.bn = nn.BatchNorm2d(channels, eps=EPSILON)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.combined(x)))
        return y


class PyramidBlock(Pyramid):
    """A pyramid, with its input added where that has as many channels."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, 1, 1)
        self.adds_input = channels_in == channels
        self.bn = NormedActivation(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(x + self.combined(x) if self.adds_input else self.combined(x))
        return y


class Encoder(nn.Module):
    """Three levels, each at half the resolution of the one before, beside the smaller image itself."""

    def __init__(self, blocks: tuple[int, int] = (2, 8)) -> None:
        super().__init__()
        self.level1 = NormedConvolution(3, 16, 2)
        self.halve = nn.AvgPool2d(3, 2, 1)
        self.b1 = NormedActivation(19)
        self.level2_0 = DownSampler(19, 64)
        self.level2 = nn.Sequential(*(PyramidBlock(64, 64) for _ in range(blocks[0])))
        self.b2 = NormedActivation(131)
        self.level3_0 = DownSampler(131, 128)
        self.level3 = nn.Sequential(*(PyramidBlock(128, 128) for _ in range(blocks[1])))
        self.b3 = NormedActivation(256)
        self.classifier = Convolution(256, CLASSES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.halve(x)
        first = self.b1(torch.cat([self.level1(x), half], 1))
        start = self.level2_0(first)
        second = self.b2(torch.cat([self.level2(start), start, self.halve(half)], 1))
        start = self.level3_0(second)
        return first, second, self.classifier(self.b3(torch.cat([start, self.level3(start)], 1)))


class EspNet(nn.Module):
    """ESPNet: (batch, 3, height, width) to (batch, 12 classes, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.level3_C = Convolution(131, CLASSES, 1)
        self.br = nn.BatchNorm2d(CLASSES, eps=EPSILON)
        self.conv = NormedConvolution(19 + CLASSES, CLASSES, 1)
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(CLASSES, CLASSES, 2, 2, bias=False))
        self.combine_l2_l3 = nn.Sequential(NormedActivation(2 * CLASSES), PyramidBlock(2 * CLASSES, CLASSES))
        self.up_l2 = nn.Sequential(nn.ConvTranspose2d(CLASSES, CLASSES, 2, 2, bias=False), NormedActivation(CLASSES))
        self.classifier = nn.ConvTranspose2d(CLASSES, CLASSES, 2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.encoder(x)
        deep = self.up_l3(self.br(third))
        middle = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(second), deep], 1)))
        scores: Tensor = self.classifier(self.conv(torch.cat([middle, first], 1)))
        return scores


def load_espnet(path: Path) -> EspNet:
    """Return the trained network, in evaluation mode."""
    model = EspNet()
    state = load_file(path)
    counters = {name: torch.tensor(0) for name in model.state_dict() if name.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **state})
    return model.eval()
