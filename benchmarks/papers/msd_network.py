"""Mixed-scale dense networks (Pelt, Sethian 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LABELS = 5  # of circles and squares, with the background


class MixedScaleDense(nn.Module):
    """A mixed-scale dense network (Pelt, Sethian 2018): each layer computes one channel from all channels before it.

    Kernels of 3 x 3 are dilated by 1 to 10.

    Args:
        depth: the number of layers.
        inputs: the number of input channels.
        classes: the number of output channels.
        mirrored: whether maps are padded by their mirror image, edges included, as the authors' are, or by zeros.
    """

    def __init__(self, depth: int, inputs: int = 1, classes: int = LABELS, mirrored: bool = False) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs + i, 1, 3, padding=0 if mirrored else 1 + i % 10, dilation=1 + i % 10)
            for i in range(depth)
        )
        self.last = nn.Conv2d(inputs + depth, classes, 1)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, (2 / (9 * (layer.in_channels + depth))) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            padded = mirror(x, layer.dilation[0]) if self.mirrored else x  # type: ignore[index]
            x = torch.cat([x, F.relu(layer(padded))], 1)
        scores: Tensor = self.last(x)
        return scores


def mirror(x: Tensor, width: int) -> Tensor:
    """Pad maps by their mirror image on every side: a b c becomes b a a b c c b for a width of 2."""
    for dim in (2, 3):
        x = torch.cat([x.narrow(dim, 0, width).flip(dim), x, x.narrow(dim, x.shape[dim] - width, width).flip(dim)], dim)
    return x
