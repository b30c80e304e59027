"""LEAN's experiment (Schoonhoven et al. 2020): circles and squares, segmented by a mixed-scale dense network.

The published experiment has 500 images of 256 x 256 with 24 objects of 32 x 32, depth 50, and three epochs after each
of 15 rounds. It would take days on one core. This experiment is smaller: 200 images of 64 x 64 with 4 objects of 16 x
16, depth 30, noise of 0.5 (which corresponds to noise of 1 at half the resolution), and one epoch after each of 8
rounds (2 rounds for 82 %). The option `--full` runs the published sizes. The figures are pixel accuracies.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from papers.datasets import camvid
from papers.layerwise import spread
from papers.settings import Row, Settings
from secateur.sparsity.lean import lean

LABELS = 5
KEPT = (0.82, 0.20, 0.11, 0.05)
PUBLISHED = {
    "lean": (0.953, 0.938, 0.935, 0.903), "l1": (0.953, 0.942, 0.785, 0.806), "norm": (0.950, 0.942, 0.920, 0.772)
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is."""

    side: int
    shape: int
    objects: int
    images: int
    tests: int
    epochs: int
    rounds: int
    depth: int
    noise: float


FULL = Sizes(256, 32, 24, 500, 50, 100, 15, 50, 1.0)
HERE = Sizes(64, 16, 4, 200, 60, 20, 8, 30, 0.5)
QUICK = Sizes(64, 16, 4, 20, 8, 2, 2, 15, 0.5)


class MixedScaleDense(nn.Module):
    """Every layer makes one channel of all before it, by 3 x 3 kernels dilated by 1 to 10 (Pelt, Sethian 2018).

    Args:
        depth: the number of layers.
        inputs: the number of input channels.
        classes: the number of output channels.
        mirrored: whether maps are continued by their mirror image, edges included, as the authors' are; else by zeros.
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
    """Maps continued by their mirror image on every side: a b c becomes b a a b c c b for a width of 2."""
    for dim in (2, 3):
        x = torch.cat([x.narrow(dim, 0, width).flip(dim), x, x.narrow(dim, x.shape[dim] - width, width).flip(dim)], dim)
    return x


def pictures(count: int, sizes: Sizes, seed: int) -> tuple[Tensor, Tensor]:
    """Squares, hollow squares, discs and rings at places that don't overlap, noise over all."""
    draws = torch.Generator().manual_seed(seed)
    images, labels = torch.zeros(count, 1, sizes.side, sizes.side), torch.zeros(count, sizes.side, sizes.side).long()
    masks, shape = _masks(sizes.shape), sizes.shape
    for image, label in zip(images[:, 0], labels, strict=True):
        placed: list[tuple[int, int]] = []
        while len(placed) < sizes.objects:
            y, x = torch.randint(0, sizes.side - shape + 1, (2,), generator=draws).tolist()
            if any(abs(y - a) < shape and abs(x - b) < shape for a, b in placed):
                if placed and torch.rand((), generator=draws) < 0.002:
                    placed = []  # no room is left: start anew
                    image.zero_()
                    label.zero_()
                continue
            placed.append((y, x))
            kind = int(torch.randint(0, 4, (1,), generator=draws))
            strength = 0.2 + 0.8 * torch.rand((), generator=draws)
            window = (slice(y, y + shape), slice(x, x + shape))
            image[window][masks[kind]] = strength
            label[window][masks[kind]] = kind + 1
    return images + sizes.noise * torch.randn(images.shape, generator=draws), labels


def _masks(shape: int) -> list[Tensor]:
    axis = torch.arange(shape) - (shape - 1) / 2
    radius = (axis[:, None].square() + axis.square()).sqrt()
    far = torch.maximum(axis[:, None].abs(), axis.abs())
    half = shape / 2
    return [far <= half, (far <= half) & (far > half / 2), radius <= half, (radius <= half) & (radius > half / 2)]


def rows(settings: Settings) -> Iterator[Row]:
    """Pixel accuracy of every way of pruning at every ratio."""
    sizes = QUICK if settings.quick else FULL if settings.full else HERE
    for seed in settings.seeds[: 1 if settings.quick else None]:
        torch.manual_seed(seed)
        data, test = examples(settings, sizes, seed)
        dense = MixedScaleDense(sizes.depth, data[0].shape[1], max(LABELS, int(data[1].max()) + 1))
        train(dense, data, sizes.epochs, seed)
        yield {"by": "dense", "seed": seed, "keep": 1.0, "accuracy": accuracy(dense, test)}
        for by in ("lean", "l1", "norm"):
            for keep in KEPT[1:2] if settings.quick else KEPT:
                yield one(dense, by, keep, sizes, seed, data, test)


def examples(settings: Settings, sizes: Sizes, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels to train with, and others to test on: circles and squares, or CamVid."""
    if settings.dataset != "camvid":
        return pictures(sizes.images, sizes, seed), pictures(sizes.tests, sizes, 10_000 + seed)
    split = camvid(settings.data)
    return (split.images, split.labels), (split.test_images, split.test_labels)


def one(
    dense: nn.Module, by: str, keep: float, sizes: Sizes, seed: int, data: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> Row:  # fmt: skip
    """One way of pruning at one ratio, with fine-tuning after each round."""
    rounds, tuning = max(1, round(sizes.rounds * (1 if keep < 0.5 else 0.25))), 3 if sizes == FULL else 1
    found = lean(dense, data[0][:1], keep, by=by, rounds=rounds, fit=lambda model: train(model, data, tuning, seed))
    row: Row = {"by": by, "seed": seed, "keep": keep, "kernels": found.kernels[1] / found.kernels[0]}
    row |= {"chains": found.rounds[-1].chains, "filled": found.rounds[-1].filled, "maps": found.maps[1] / found.maps[0]}
    return row | {
        "accuracy": accuracy(found.model, test),
    }  # fmt: skip


def train(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, seed: int) -> None:
    """Adam on batches of four."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3 if epochs <= 3 else 4e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data[0]), generator=draws).split(4):
            optimizer.zero_grad()
            F.cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in test[0].split(4)])
    model.train()
    known = test[1] >= 0
    return float((found == test[1])[known].double().mean())


def figure(rows: list[Row]) -> Figure:
    """Accuracy against the kernels kept, ours (lines) and published (dashed)."""
    drawn = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawn.subplots()
    for number, (by, published) in enumerate(PUBLISHED.items()):
        own: defaultdict[float, list[float]] = defaultdict(list)
        for row in rows:
            if row["by"] == by:
                own[float(row["keep"])].append(float(row["accuracy"]))  # type: ignore[arg-type]
        axes.plot(sorted(own), [mean(own[keep]) for keep in sorted(own)], color=f"C{number}", marker="o", label=by)
        axes.plot(KEPT, published, color=f"C{number}", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("kernels kept")
    axes.set_ylabel("pixel accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn


def page(rows: list[Row]) -> list[str]:
    """Pixel accuracy beside the published one."""
    found: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        found[str(row["by"]), float(row["keep"])].append(float(row["accuracy"]))  # type: ignore[arg-type]
    lines = [f"Accuracy of the dense network: {spread(found['dense', 1.0])[0]}.", ""]
    lines += ["| kernels kept | " + " | ".join(f"{by} | published" for by in PUBLISHED) + " |", "|---" * 7 + "|"]
    for place, keep in enumerate(KEPT):
        cells = [
            f"{spread(found[by, keep])[0] if found[by, keep] else ''} | {PUBLISHED[by][place]}" for by in PUBLISHED
        ]
        lines.append(f"| {keep:.0%} | {' | '.join(cells)} |")
    return lines
