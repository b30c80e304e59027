"""BC-ResNet (Kim et al., 2021) for keyword spotting: residuals over time that are broadcast over frequencies."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

BANDS = 5  # of sub-spectral normalization
WIDTHS = (16, 24, 32, 40)
BLOCKS = (2, 2, 4, 4)
HEAD = 64


class SubSpectralNorm(nn.Module):
    """Batch norm of each channel in each of five bands of frequencies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels * BANDS)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frequencies, steps = x.shape
        y: Tensor = self.bn(x.view(batch, channels * BANDS, frequencies // BANDS, steps))
        return y.view(batch, channels, frequencies, steps)


class BroadcastBlock(nn.Module):
    """A depthwise convolution over frequencies, and one over time of the mean over frequencies, added to all of them.

    Args:
        channels_in: the channels of the input; where they differ from `channels`, there is no identity shortcut.
        channels: the channels of the output.
        stride: over frequencies.
        dilation: over time.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.is_transition = channels_in != channels
        change = [nn.Conv2d(channels_in, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()]
        over_frequencies = nn.Conv2d(channels, channels, (3, 1), (stride, 1), (1, 0), groups=channels)
        self.f2 = nn.Sequential(*(change if self.is_transition else []), over_frequencies, SubSpectralNorm(channels))
        self.f1 = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=channels),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.f2(x)  # (batch, channels, frequencies, steps)
        z: Tensor = self.f1(y.mean(2, keepdim=True)) + y
        return F.relu(z if self.is_transition else z + x)


class BcResNet(nn.Module):
    """BC-ResNet-2: (batch, 1, 40 mel bands, steps) to 35 words."""

    def __init__(self) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(1, 2 * WIDTHS[0], 5, (2, 1), 2)
        channels = 2 * WIDTHS[0]
        self.order: list[str] = []
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 1):
            for number in range(blocks):
                name = f"n{stage}{number}" if number else f"t{stage}"
                stride = 2 if number == 0 and stage in (2, 3) else 1
                self.add_module(name, BroadcastBlock(channels, width, stride, 2 ** (stage - 1)))
                self.order.append(name)
                channels = width
        self.dw_conv = nn.Conv2d(channels, channels, 5, padding=(0, 2), groups=channels // 2)
        self.onexone_conv = nn.Conv2d(channels, HEAD, 1)
        self.head_conv = nn.Conv2d(HEAD, 35, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_conv(x)
        for name in self.order:
            x = getattr(self, name)(x)
        x = self.dw_conv(x).mean(2, keepdim=True)
        logits: Tensor = self.head_conv(self.onexone_conv(x).mean(3, keepdim=True)).flatten(1)
        return logits


def load_bcresnet(path: Path) -> BcResNet:
    """Return the trained network, in evaluation mode."""
    model = BcResNet()
    model.load_state_dict(load_file(path))
    return model.eval()
