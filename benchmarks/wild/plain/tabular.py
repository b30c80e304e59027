"""Networks for tables: recommendation from categories and numbers, and splines in place of weights."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers)


class DLRM(nn.Module):
    """The deep learning recommendation model of Naumov et al., 2019: bags of categories, products of all pairs."""

    def __init__(self, numbers: int = 13, rows: tuple[int, ...] = (50, 30, 80, 20), width: int = 16) -> None:
        super().__init__()
        self.bottom = _mlp(numbers, 64, 32, width)
        self.tables = nn.ModuleList(nn.EmbeddingBag(count, width, mode="sum") for count in rows)
        features = len(rows) + 1
        self.register_buffer("pairs", torch.tril_indices(features, features, -1), persistent=False)
        self.top = _mlp(width + features * (features - 1) // 2, 64, 32)
        self.click = nn.Linear(32, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        bags = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        features = torch.stack([dense, *bags], 1)  # (B, features, width)
        products = torch.bmm(features, features.transpose(1, 2))
        pairs = products[:, self.pairs[0], self.pairs[1]]
        logits: Tensor = self.click(self.top(torch.cat([dense, pairs], 1)))
        return logits.sigmoid().squeeze(-1)


def clicks(count: int = 4, bag: int = 3) -> tuple[Tensor, Tensor]:
    """Draw dense features (count, 13) and the numbers of sparse ones (count, 4, bag)."""
    return torch.randn(count, 13), torch.randint(0, 20, (count, 4, bag))


class SplineLinear(nn.Module):
    """Each connection is a function of its own: a SiLU and B-splines, both with weights.

    Args:
        features_in: number of inputs.
        features_out: number of outputs.
        intervals: number of intervals of the grid on [-1, 1].
        order: order of the splines.
    """

    grid: Tensor

    def __init__(self, features_in: int, features_out: int, intervals: int = 5, order: int = 3) -> None:
        super().__init__()
        self.order = order
        points = torch.arange(-order, intervals + order + 1) * (2 / intervals) - 1
        self.register_buffer("grid", points.expand(features_in, -1).contiguous())
        self.base_weight = nn.Parameter(torch.randn(features_out, features_in) * features_in**-0.5)
        self.spline_weight = nn.Parameter(torch.randn(features_out, features_in, intervals + order) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        base = F.linear(F.silu(x), self.base_weight)
        return base + F.linear(self._splines(x).flatten(1), self.spline_weight.flatten(1))

    def _splines(self, x: Tensor) -> Tensor:
        x, grid = x[:, :, None], self.grid
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)  # (B, in, intervals + 2 order)
        for k in range(1, self.order + 1):
            rising = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)])
            bases = rising * bases[:, :, :-1] + falling * bases[:, :, 1:]
        return bases


class KAN(nn.Module):
    """The Kolmogorov-Arnold network of Liu et al., 2024, with one weight tensor for all splines of a layer."""

    def __init__(self, widths: tuple[int, ...] = (8, 24, 16, 3)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SplineLinear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
