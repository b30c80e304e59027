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
from networks.pixels import normalise_pixels
from networks.trained import trained
from rows import spread_text
from scipy import stats
from torch import Tensor, nn

import secateur as sc
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


@dataclass(frozen=True)
class GateSubject:
    """A trained network, images to rank units with, and others to test on."""

    name: str
    seed: int
    make: Callable[[], nn.Module]
    images: Labelled
    tests: Labelled


def gate_rows(settings: Settings) -> Iterator[Row]:
    """Yield the agreement of criteria with the oracle, and accuracies after cuts."""
    for subject in list(_subjects(settings))[: 1 if settings.quick else None]:
        names = settings.chosen(CRITERIA[:2] if settings.quick else CRITERIA)
        yield from _subject_rows(subject, names, 32 if settings.quick else IMAGES)
        if not settings.quick:
            yield _diagonals(subject)


def _subjects(settings: Settings) -> Iterator[GateSubject]:
    x, y = (torch.cat(batches) for batches in zip(*demo.test(), strict=True))
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
        arrays_of_splits = [
            (arrays["xtrain"][order], arrays["ytrain"][order]),
            (arrays["xtest"][:TESTS], arrays["ytest"][:TESTS]),
        ]
    images = [normalise_pixels(x) for x, _ in arrays_of_splits]
    labels = [torch.from_numpy(y).long() for _, y in arrays_of_splits]
    return (images[0], labels[0]), (images[1], labels[1])


def _subject_rows(subject: GateSubject, names: Sequence[str], count: int) -> Iterator[Row]:
    data = [(x[:count], y[:count]) for x, y in [subject.images]]
    model = subject.make()
    network = sc.trace(model, data[0][0][:2])
    stages = {group.name for group in network.groups if group.kind == "residual"}
    oracle = sc.score(network, data, "oracle", ablation="zero", progress=False)
    for name in names:
        scores = sc.score(network, data, name, ablation="zero", progress=False)
        agreement_rows = agreements(scores, oracle)
        layers = [row for row in agreement_rows if row.group != ALL and row.spearman == row.spearman]
        in_stages = [row.spearman for row in layers if row.group in stages]
        over_all = next(row for row in agreement_rows if row.group == ALL)
        row = {
            "network": subject.name, "seed": subject.seed, "by": name, "pearson": over_all.pearson,
            "spearman": over_all.spearman, "in layers": float(np.mean([row.spearman for row in layers])),
            "in stages": float(np.mean(in_stages)),
        }  # fmt: skip
        for allocation in ALLOCATIONS if name == "taylor-gates" else ("raw",):
            accuracies = {f"{gone:.0%} gone": _cut_accuracy(subject, model, scores, gone, allocation) for gone in GONE}
            yield {"part": "gates", **row, "allocation": allocation, **accuracies}


def _cut_accuracy(subject: GateSubject, model: nn.Module, scores: sc.Scores, gone: float, allocation: str) -> float:
    network = sc.trace(model, subject.images[0][:2])
    small = sc.cut(model, sc.plan(network, scores, {"units": 1 - gone}, allocation=allocation))
    x, y = subject.tests
    with torch.no_grad():
        predicted = torch.cat([small(batch) for batch in x.split(250)]).argmax(1)
    return float((predicted == y).double().mean())


def _diagonals(subject: GateSubject) -> Row:
    """Return the correlation of the score by eight products with that by the exact diagonal, on two minibatches."""
    x, y = subject.images
    data = [(x[:FEW], y[:FEW])]
    network = sc.trace(subject.make(), x[:2])
    estimates = [
        sc.score(network, data, "taylor-gates-second", estimator=estimator, progress=False)
        for estimator in ("hutchinson", "exact")
    ]
    values = [torch.cat([scores[name].values for name in scores]).numpy() for scores in estimates]
    spearman = float(stats.spearmanr(*values).statistic)
    return {"part": "diagonal", "network": subject.name, "seed": subject.seed, "spearman": spearman}


COLUMNS = ("pearson", "spearman", "in layers", "in stages", *(f"{gone:.0%} gone" for gone in GONE))


def gate_tables(rows: list[Row]) -> list[str]:
    """Return the lines of a table for each network, and a line on the Hessian's diagonal."""
    lines: list[str] = []
    gate_measures = [row for row in rows if row["part"] == "gates"]
    for network in dict.fromkeys(str(row["network"]) for row in gate_measures):
        lines += [f"{network}:", "", "| criterion, allocation | " + " | ".join(COLUMNS) + " |"]
        lines.append("|---" * (len(COLUMNS) + 1) + "|")
        of_network = [row for row in gate_measures if row["network"] == network]
        for kind in dict.fromkeys((str(row["by"]), str(row["allocation"])) for row in of_network):
            same = [row for row in of_network if (row["by"], row["allocation"]) == kind]
            cells = [_gate_cell(same, column) for column in COLUMNS]
            lines.append(f"| {kind[0]}, {kind[1]} | " + " | ".join(cells) + " |")
        lines.append("")
    diagonals = [row for row in rows if row["part"] == "diagonal"]
    if diagonals:
        texts = [f"{row['network']} {row['seed']}: {float(row['spearman']):.2f}" for row in diagonals]  # type: ignore[arg-type]
        lines += [
            "Spearman's correlation between `taylor-gates-second` by eight Hessian-vector products for each minibatch "
            f"and the same criterion by the exact diagonal of the Hessian, on two minibatches: {'; '.join(texts)}.",
        ]
    return lines


def _gate_cell(rows: list[Row], column: str) -> str:
    values = [float(row[column]) for row in rows]  # type: ignore[arg-type]
    is_accuracy = column.endswith("gone")
    return spread_text([100 * value for value in values], 1) if is_accuracy else spread_text(values, 3)
