"""A network of depthwise-separable convolutions for 28 x 28 grey images, in the manner of MobileNetV2."""

from torch import Tensor, nn


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself and project, with a residual connection where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.layers = nn.Sequential(
            *_convolution(channels_in, inner, 1),
            nn.ReLU6(),
            *_convolution(inner, inner, 3, stride, inner),
            nn.ReLU6(),
            *_convolution(inner, channels_out, 1),
        )
        self.skips = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.skips else y


class Separable(nn.Module):
    """A stem of stride 2, five inverted residual blocks at two sizes, a 1 x 1 head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(1, 24, 3, 2), nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(24, 24, 1),
            InvertedResidual(24, 40, 1),
            InvertedResidual(40, 40, 1),
            InvertedResidual(40, 64, 2),
            InvertedResidual(64, 64, 1),
        )
        self.head = nn.Sequential(*_convolution(64, 192, 1), nn.ReLU6())
        self.fc = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.fc(y.mean((2, 3)))
        return logits
