"""Networks and images to tune with."""

from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc


def seeded_draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class PooledImages(nn.Module):
    """Class scores from the mean over all places of an image, so that flips change nothing."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = 20 * self.head(self.body(x).flatten(1))
        return scores


def random_images(count: int = 40) -> Tensor:
    """Images of different brightness."""
    return torch.randn(count, 1, 1, 1, generator=seeded_draws()) + 0.3 * torch.randn(
        count, 1, 16, 16, generator=seeded_draws()
    )


def cut_by_norm(model: nn.Module, x: Tensor, keep: float, **options: Any) -> tuple[nn.Module, sc.Plan]:
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, by="l2", progress=False, **options), {"macs": keep})
    return sc.cut(model, plan), plan
