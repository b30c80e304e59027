"""LEAN's experiment (Schoonhoven et al. 2020): circles and squares, segmented by a mixed-scale dense network.

The published experiment has 500 images of 256 x 256 with 24 objects of 32 x 32, depth 50, and three epochs after each
of 15 rounds. It would take days on one core. This experiment is smaller: 200 images of 64 x 64 with 4 objects of 16 x
16, depth 30, noise of 0.5 (which corresponds to noise of 1 at half the resolution), and one epoch after each of 8
rounds (2 rounds for 82 %). The option `--full` runs the published sizes. The figures are pixel accuracies.
"""

from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

import torch
from matplotlib.figure import Figure
from rows import spread_text
from torch import Tensor, nn
from torch.nn import functional as F

from papers.circle_images import Sizes, draw_circles
from papers.datasets import camvid
from papers.msd_network import LABELS, MixedScaleDense
from papers.settings import Row, Settings
from secateur.sparsity.lean import lean

KEPT = (0.82, 0.20, 0.11, 0.05)
PUBLISHED = {
    "lean": (0.953, 0.938, 0.935, 0.903), "l1": (0.953, 0.942, 0.785, 0.806), "norm": (0.950, 0.942, 0.920, 0.772)
}  # fmt: skip


FULL = Sizes(256, 32, 24, 500, 50, 100, 15, 50, 1.0)
HERE = Sizes(64, 16, 4, 200, 60, 20, 8, 30, 0.5)
QUICK = Sizes(64, 16, 4, 20, 8, 2, 2, 15, 0.5)


def circle_rows(settings: Settings) -> Iterator[Row]:
    """Yield the pixel accuracies of every method of pruning at every ratio."""
    sizes = QUICK if settings.quick else FULL if settings.full else HERE
    for seed in settings.seeds[: 1 if settings.quick else None]:
        torch.manual_seed(seed)
        data, test = circle_examples(settings, sizes, seed)
        dense = MixedScaleDense(sizes.depth, data[0].shape[1], max(LABELS, int(data[1].max()) + 1))
        train_segmentation(dense, data, sizes.epochs, seed)
        yield {"by": "dense", "seed": seed, "keep": 1.0, "accuracy": pixel_accuracy(dense, test)}
        for by in ("lean", "l1", "norm"):
            for keep in KEPT[1:2] if settings.quick else KEPT:
                yield pruned_row(dense, by, keep, sizes, seed, data, test)


def circle_examples(settings: Settings, sizes: Sizes, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return images and labels to train with, and others to test on: circles and squares, or CamVid."""
    if settings.dataset != "camvid":
        return draw_circles(sizes.images, sizes, seed), draw_circles(sizes.tests, sizes, 10_000 + seed)
    split = camvid(settings.data)
    return (split.images, split.labels), (split.test_images, split.test_labels)


def pruned_row(
    dense: nn.Module, by: str, keep: float, sizes: Sizes, seed: int, data: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> Row:  # fmt: skip
    """Prune by one method to one ratio, with fine-tuning after each round, and return the row."""
    rounds, tuning = max(1, round(sizes.rounds * (1 if keep < 0.5 else 0.25))), 3 if sizes == FULL else 1
    pruned = lean(
        dense, data[0][:1], keep, by=by, rounds=rounds, fit=lambda model: train_segmentation(model, data, tuning, seed)
    )
    row: Row = {"by": by, "seed": seed, "keep": keep, "kernels": pruned.kernels[1] / pruned.kernels[0]}
    row |= {
        "chains": pruned.rounds[-1].chains,
        "filled": pruned.rounds[-1].filled,
        "maps": pruned.maps[1] / pruned.maps[0],
    }
    return row | {"accuracy": pixel_accuracy(pruned.model, test)}


def train_segmentation(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, seed: int) -> None:
    """Train with Adam on batches of four."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3 if epochs <= 3 else 4e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data[0]), generator=draws).split(4):
            optimizer.zero_grad()
            F.cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()
            optimizer.step()


@torch.no_grad()
def pixel_accuracy(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Return the share of labelled pixels whose class is predicted."""
    model.eval()
    predicted = torch.cat([model(batch).argmax(1) for batch in test[0].split(4)])
    model.train()
    known = test[1] >= 0
    return float((predicted == test[1])[known].double().mean())


def circle_figure(rows: list[Row]) -> Figure:
    """Return a plot of the accuracy against the kernels kept, ours (lines) and published (dashed)."""
    lines: dict[str, dict[float, float]] = {}
    for by in PUBLISHED:
        accuracies: defaultdict[float, list[float]] = defaultdict(list)
        for row in rows:
            if row["by"] == by:
                accuracies[float(row["keep"])].append(float(row["accuracy"]))  # type: ignore[arg-type]
        lines[by] = {keep: mean(accuracies[keep]) for keep in sorted(accuracies)}
    return draw_accuracies(lines, "o")


def draw_accuracies(lines: dict[str, dict[float, float]], marker: str) -> Figure:
    """Return a plot of accuracies by the share of kernels kept, beside the published ones.

    Args:
        lines: the accuracies by method and share.
        marker: the marker of measured accuracies.
    """
    plot = Figure(figsize=(5, 3.4), layout="constrained")
    axes = plot.subplots()
    for number, (by, accuracies) in enumerate(lines.items()):
        axes.plot(list(accuracies), list(accuracies.values()), color=f"C{number}", marker=marker, label=by)
        axes.plot(KEPT, PUBLISHED[by], color=f"C{number}", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("kernels kept")
    axes.set_ylabel("pixel accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return plot


def circle_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table of pixel accuracies beside the published ones."""
    accuracies: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        accuracies[str(row["by"]), float(row["keep"])].append(float(row["accuracy"]))  # type: ignore[arg-type]
    lines = [f"Accuracy of the dense network: {spread_text(accuracies['dense', 1.0], 3)}.", ""]
    lines += ["| kernels kept | " + " | ".join(f"{by} | published" for by in PUBLISHED) + " |", "|---" * 7 + "|"]
    for index, keep in enumerate(KEPT):
        cells = [f"{spread_text(accuracies[by, keep], 3)} | {PUBLISHED[by][index]}" for by in PUBLISHED]
        lines.append(f"| {keep:.0%} | {' | '.join(cells)} |")
    return lines
