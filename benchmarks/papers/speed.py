"""Measure the time of LEAN for about a million kernels, on one thread.

python -m benchmarks reproductions.speed
"""

import time

import torch
from torch import Tensor, nn

from secateur.sparsity.lean import lean

WIDTHS = (256, 512, 512, 512, 512)


class Million(nn.Module):
    """Five convolutions with batch norm, untrained, of uneven strength so that there are long chains."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            nn.init.normal_(layers[-3].weight, 0, 0.1)
            nn.init.uniform_(layers[-2].weight, 0, 4)
            channels = width
        self.features, self.head = nn.Sequential(*layers), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def main() -> None:
    """Print the times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Million().eval()
    for keep in (0.5, 0.1):
        start = time.perf_counter()
        pruned = lean(model, torch.randn(1, 3, 32, 32), keep)
        print(f"{time.perf_counter() - start:.1f} s: {pruned}")


if __name__ == "__main__":
    main()
