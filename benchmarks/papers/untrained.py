"""Untrained networks (Ancona et al. 2020): remove every unit with a negative Shapley value, and no other unit.

The network has two hidden layers of 2,024 units and random weights. The figures are accuracies on MNIST. Shapley
values are means over the examples by the default estimator, with 64 evaluations for each unit.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import secateur as sc
from papers.datasets import mnist
from papers.settings import Row, Settings
from secateur.coupling.plan import Plan
from secateur.stopping import Evaluations


class Wide(nn.Module):
    """Two hidden layers, as torch initialises them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.flatten(1))
        return logits


def untrained_rows(settings: Settings) -> Iterator[Row]:
    """Yield the accuracies before and after units of negative value are removed, from the last layer to the first."""
    split = mnist(settings.data)
    width, images = (256, 200) if settings.quick else (2024, 1000)
    data = list(zip(split.images[:images].split(100), split.labels[:images].split(100), strict=True))
    for seed in settings.seeds:
        torch.manual_seed(seed)
        model = Wide(width).eval()
        row: Row = {
            "seed": seed,
            "width": width,
            "before": _digit_accuracy(model, split.test_images, split.test_labels),
        }
        for layer in ("layers.2", "layers.0"):
            network = sc.trace(model, data[0][0][:2])
            scores = sc.score(
                network, data, ablation="zero", aggregate="mean", only=layer, seed=seed, progress=False,
                stop=Evaluations(64 * width),
            )  # fmt: skip
            kept = torch.nonzero(scores[layer].values > 0).flatten()
            plan = Plan(network, {layer: kept}, {}, network.cost({layer: kept}), network.cost(), {"units": 1.0})
            model = sc.cut(model, plan)
            row[f"kept in {layer}"] = len(kept)
            row[f"after {layer}"] = _digit_accuracy(model, split.test_images, split.test_labels)
        yield row


@torch.no_grad()
def _digit_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((torch.cat([model(batch) for batch in images.split(1000)]).argmax(1) == labels).double().mean())


def untrained_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table, one for each seed."""
    lines = ["| seed | width | untrained | last layer cut | both cut | units left |", "|---|---|---|---|---|---|"]
    for row in rows:
        kept = f"{row['kept in layers.0']}, {row['kept in layers.2']}"
        accuracies = (f"{row[name]:.1%}" for name in ("before", "after layers.2", "after layers.0"))
        lines.append(f"| {row['seed']} | {row['width']} | {' | '.join(accuracies)} | {kept} |")
    return [*lines, "", "Published (2024-2024, MNIST): 7 % to 51 %."]
