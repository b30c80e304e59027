"""Taylor 2019's gates in residual networks (Molchanov et al.): positions of gates, and one ranking of raw scores.

The oracle is the squared change of the loss by the removal of one unit, on 512 labelled images. Every criterion is
computed from the same images. The first four columns are correlations with the oracle: Pearson's and Spearman's over
all units, and Spearman's within layers and within the stages of the residual stream. The last three columns are
accuracies in % on other images, after 10, 20 and 30 % of the units are removed at once without tuning.

The residual network is that of `benchmarks/networks`, on images of Fashion-MNIST that ship with Secateur. ResNet-20
is that of He et al. on CIFAR-10; it is included where DIR holds cifar10.npz and cifar10_resnet20.safetensors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from networks.cifar_resnet import load_cifar_resnet
from networks.trained import trained
from scipy import stats
from torch import Tensor, nn

import secateur as sc
from papers.layerwise import spread
from papers.settings import Row, Settings
from secateur import demo
from secateur.importance.rank_correlation import ALL, agreements

Labelled = tuple[Tensor, Tensor]
CRITERIA = (
    "taylor-gates", "taylor-gates-norms", "taylor-gates-before-norm", "taylor-gates-second", "taylor-weights", "taylor",
)  # fmt: skip
ALLOCATIONS = ("raw", "global", "uniform")
GONE = (0.1, 0.2, 0.3)
IMAGES, TESTS, FEW = 512, 1000, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class GateSubject:
    """A trained network, images to rank by, and others to test on."""

    name: str
    seed: int
    make: Callable[[], nn.Module]
    images: Labelled
    tests: Labelled


def rows(settings: Settings) -> Iterator[Row]:
    """Agreement with the oracle, and accuracies after cuts."""
    for subject in list(_subjects(settings))[: 1 if settings.quick else None]:
        names = settings.chosen(CRITERIA[:2] if settings.quick else CRITERIA)
        yield from _of_subject(subject, names, 32 if settings.quick else IMAGES)
        if not settings.quick:
            yield _diagonals(subject)


def _subjects(settings: Settings) -> Iterator[GateSubject]:
    x, y = (torch.cat(part) for part in zip(*demo.test(), strict=True))
    fashion = (x[:IMAGES], y[:IMAGES]), (x[-TESTS:], y[-TESTS:])
    for seed in settings.seeds:
        yield GateSubject("residual", seed, lambda seed=seed: trained("residual", seed), *fashion)
    if 0 not in settings.seeds:
        return
    weights = settings.data / "cifar10_resnet20.safetensors"
    if weights.exists():
        yield GateSubject("ResNet-20", 0, lambda: load_cifar_resnet(weights), *_cifar(settings.data / "cifar10.npz"))


def _cifar(path: Path) -> tuple[Labelled, Labelled]:
    with np.load(path) as arrays:
        order = np.random.default_rng(0).permutation(len(arrays["xtrain"]))[:IMAGES]
        parts = [(arrays["xtrain"][order], arrays["ytrain"][order]), (arrays["xtest"][:TESTS], arrays["ytest"][:TESTS])]
    shape = (1, 3, 1, 1)
    images = [
        (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
        for x, _ in parts
    ]
    labels = [torch.from_numpy(y).long() for _, y in parts]
    return (images[0], labels[0]), (images[1], labels[1])


def _of_subject(subject: GateSubject, names: Sequence[str], count: int) -> Iterator[Row]:
    data = [(x[:count], y[:count]) for x, y in [subject.images]]
    model = subject.make()
    network = sc.trace(model, data[0][0][:2])
    stages = {group.name for group in network.groups if group.kind == "residual"}
    oracle = sc.score(network, data, "oracle", ablation="zero", progress=False)
    for name in names:
        scores = sc.score(network, data, name, ablation="zero", progress=False)
        found = agreements(scores, oracle)
        layers = [row for row in found if row.group != ALL and row.spearman == row.spearman]
        in_stages = [row.spearman for row in layers if row.group in stages]
        whole = next(row for row in found if row.group == ALL)
        row = {
            "network": subject.name, "seed": subject.seed, "by": name, "pearson": whole.pearson,
            "spearman": whole.spearman, "in layers": float(np.mean([row.spearman for row in layers])),
            "in stages": float(np.mean(in_stages)),
        }  # fmt: skip
        for allocation in ALLOCATIONS if name == "taylor-gates" else ("raw",):
            accuracies = {f"{gone:.0%} gone": _accuracy(subject, model, scores, gone, allocation) for gone in GONE}
            yield {"part": "gates", **row, "allocation": allocation, **accuracies}


def _accuracy(subject: GateSubject, model: nn.Module, scores: sc.Scores, gone: float, allocation: str) -> float:
    network = sc.trace(model, subject.images[0][:2])
    small = sc.cut(model, sc.plan(network, scores, {"units": 1 - gone}, allocation=allocation))
    x, y = subject.tests
    with torch.no_grad():
        predicted = torch.cat([small(part) for part in x.split(250)]).argmax(1)
    return float((predicted == y).double().mean())


def _diagonals(subject: GateSubject) -> Row:
    """How far the score by eight products agrees with that by the exact diagonal, on two minibatches."""
    x, y = subject.images
    data = [(x[:FEW], y[:FEW])]
    network = sc.trace(subject.make(), x[:2])
    found = [
        sc.score(network, data, "taylor-gates-second", estimator=estimator, progress=False)
        for estimator in ("hutchinson", "exact")
    ]
    values = [torch.cat([scores[name].values for name in scores]).numpy() for scores in found]
    spearman = float(stats.spearmanr(*values).statistic)
    return {"part": "diagonal", "network": subject.name, "seed": subject.seed, "spearman": spearman}


COLUMNS = ("pearson", "spearman", "in layers", "in stages", *(f"{gone:.0%} gone" for gone in GONE))


def page(rows: list[Row]) -> list[str]:
    """A table for each network, and a line on the Hessian's diagonal."""
    lines: list[str] = []
    found = [row for row in rows if row["part"] == "gates"]
    for network in dict.fromkeys(str(row["network"]) for row in found):
        lines += [f"{network}:", "", "| criterion, allocation | " + " | ".join(COLUMNS) + " |"]
        lines.append("|---" * (len(COLUMNS) + 1) + "|")
        own = [row for row in found if row["network"] == network]
        for kind in dict.fromkeys((str(row["by"]), str(row["allocation"])) for row in own):
            same = [row for row in own if (row["by"], row["allocation"]) == kind]
            cells = [_cell(same, column) for column in COLUMNS]
            lines.append(f"| {kind[0]}, {kind[1]} | " + " | ".join(cells) + " |")
        lines.append("")
    diagonals = [row for row in rows if row["part"] == "diagonal"]
    if diagonals:
        each = [f"{row['network']} {row['seed']}: {float(row['spearman']):.2f}" for row in diagonals]  # type: ignore[arg-type]
        lines += [
            "Spearman's correlation between `taylor-gates-second` by eight Hessian-vector products for each minibatch "
            f"and the same criterion by the exact diagonal of the Hessian, on two minibatches: {'; '.join(each)}.",
        ]
    return lines


def _cell(rows: list[Row], column: str) -> str:
    values = [float(row[column]) for row in rows]  # type: ignore[arg-type]
    return spread([100 * value for value in values], 1)[0] if column.endswith("gone") else spread(values)[0]
