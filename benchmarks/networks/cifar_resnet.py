"""The ResNets of He et al., 2016, for CIFAR-10: three stages of basic blocks, shortcuts without parameters."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions, and a shortcut without parameters: the input, or every second pixel padded with zeros."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Identity() if channels_in == channels_out else PaddedShortcut(channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """Option A of the paper as in most public code: a function, not a module, holds the numbers of zeros."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.function = lambda x: F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, channels // 4, channels // 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


class CifarResNet(nn.Module):
    """A ResNet of 6 n + 2 layers for 32 x 32 images.

    Args:
        blocks: n, the number of blocks in each of the three stages: 3 for ResNet-20, 9 for ResNet-56.
        widths: channels of the stages.
        classes: number of classes.
    """

    def __init__(self, blocks: int = 3, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks, 1)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2)
        self.linear = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = CifarBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(CifarBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def load_cifar_resnet(path: Path) -> CifarResNet:
    """Load a trained network from a safetensors file, whose names give the depth.

    Args:
        path: tensors under the names of `CifarResNet`; batch counters may be missing.

    Returns:
        The network, in evaluation mode. It expects (x / 255 - mean) / std with the means (.485, .456, .406) and
        standard deviations (.229, .224, .225) of ImageNet.
    """
    state = load_file(path)
    widths = tuple(state[f"layer{stage}.0.conv1.weight"].shape[0] for stage in (1, 2, 3))
    blocks = len({name.split(".")[1] for name in state if name.startswith("layer1.")})
    model = CifarResNet(blocks, (widths[0], widths[1], widths[2]), state["linear.bias"].shape[0])
    counters = {name: torch.tensor(0) for name in model.state_dict() if name.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **state})
    return model.eval()
