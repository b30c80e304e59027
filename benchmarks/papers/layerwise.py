"""Layer-wise robustness (Ancona et al. 2020): one layer at a time, units removed in ascending order of their score.

The figure is the area: the sum over removed units of (loss - initial loss) / units, here over at most 16 steps. Lower
is better. Scores are computed from 1,000 images, areas from 500 others.

The estimators of Shapley values are:

- `shapley, the paper's protocol`: `protocol="paper"`. Five orders are shared by all examples, and the score is
  numpy's mean and two standard deviations over the examples, under zero ablation.
- `shapley, robust` and `shapley, mean`: the default, `estimator="auto"`, which takes orders with their reverses, or
  gradients corrected along orders where these explain most of the values. It stops when errors are half of the
  scores' spread, or after 64 evaluations for each unit. The aggregate `robust` subtracts the variance of the
  estimate.
"""

from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

import torch
from matplotlib.figure import Figure
from rows import spread_text

import secateur as sc
from papers.settings import Row, Settings
from papers.subjects import load_paper_subject
from secateur.data.conversion import as_batches
from secateur.importance.context import CriterionContext, split_microbatches
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.memory import DEFAULT_BYTES as MEMORY
from secateur.masking.unit_means import consumer_means

STEPS = 16
PROTOCOL = "shapley, the paper's protocol"
CRITERIA: dict[str, dict[str, object]] = {
    "shapley, robust": {"by": "shapley", "aggregate": "robust"},
    "shapley, mean": {"by": "shapley", "aggregate": "mean"},
    PROTOCOL: {"by": "shapley", "protocol": "paper"},
    "obs": {"by": "obs"},
    "leave-one-out": {"by": "leave-one-out"},
    "taylor-gates": {"by": "taylor-gates"},
    "taylor": {"by": "taylor"},
    "taylor-signed": {"by": "taylor-signed"},
    "integrated-gradients": {"by": "integrated-gradients"},
    "sensitivity": {"by": "sensitivity"},
    "apoz": {"by": "apoz"},
    "l1": {"by": "l1"},
    "fpgm": {"by": "fpgm"},
    "random": {"by": "random"},
}
SLOW = ("leave-one-out", "integrated-gradients")  # for seed 0 only
PUBLISHED = {
    PROTOCOL: 0.31, "shapley, robust": 0.31, "shapley, mean": 0.35, "l1": 0.47, "sensitivity": 0.47, "taylor": 0.47,
    "random": 0.48, "apoz": 0.56, "taylor-signed": 0.64,
}  # fmt: skip


def layerwise_rows(settings: Settings) -> Iterator[Row]:
    """Yield the area of every criterion in every layer."""
    images, tests = (100, 100) if settings.quick else ((settings.images or (1000,))[0], 500)
    names = settings.chosen(list(CRITERIA)[:3] if settings.quick else list(CRITERIA))
    for seed in settings.seeds[: 1 if settings.quick else None]:
        subject = load_paper_subject(settings, seed)
        data, model = subject.images(images), subject.model()
        network = sc.trace(model, data[0][0][:2])
        only = [network.groups[-1].name] if settings.quick else None
        test = [(subject.split.test_images[:tests], subject.split.test_labels[:tests])]
        for removal in ("zero", "mean") if settings.dataset == "fashion" else ("zero",):  # the published one is zero
            curves = LossGrowth(network, test, data, removal)
            robust = None
            for name in names:
                if (name in SLOW and seed) or (name == PROTOCOL and removal == "mean"):
                    continue
                if name == "shapley, mean" and robust is not None:  # of the same blocks
                    values = {key: group_scores.per_example.nanmean(1) for key, group_scores in robust.items()}
                else:
                    options = {"removal": removal, "only": only, "seed": seed, "progress": False, **CRITERIA[name]}
                    scores = sc.score(network, data, **options)
                    robust = scores if name == "shapley, robust" else robust
                    values = {key: group_scores.values for key, group_scores in scores.items()}
                for group in network.select(only):
                    area = curves.area(group.name, values[group.name].argsort(stable=True))
                    yield {"by": name, "removal": removal, "seed": seed, "layer": group.name, "area": area}


class LossGrowth:
    """The loss on test images as units of a layer are removed.

    Args:
        network: the traced network.
        test: the test images.
        data: the images of which means are taken, for mean ablation.
        removal: the ablation.
    """

    def __init__(self, network: sc.Network, test: object, data: object, removal: str) -> None:
        microbatches = split_microbatches(as_batches(test), network.device, 50)
        means = (
            consumer_means(network, split_microbatches(as_batches(data), network.device)) if removal == "mean" else {}
        )
        self.context = CriterionContext(network, network.groups, microbatches, None, means, 0)
        self.cursor = DenseRun(self.context, MEMORY)

    def area(self, name: str, order: torch.Tensor) -> float:
        """Return the area under the growth of the loss, from none to all units removed.

        Args:
            name: the group.
            order: its units in the order of their removal.
        """
        network, count = self.context.network, len(order)
        game = Game(self.context, [network[name]], EvaluationConfig(memory=MEMORY), self.cursor)
        counts = sorted({round(step * count / STEPS) for step in range(STEPS + 1)})
        coalitions = torch.ones(len(counts), count, dtype=torch.bool)
        for row, removed in zip(coalitions, counts, strict=True):
            row[order[:removed]] = False
        losses = torch.zeros(len(counts), dtype=torch.float64)
        total = 0
        for number, microbatch in enumerate(self.context.microbatches):
            size = microbatch.size or 1
            losses -= game.cross(coalitions, number, torch.arange(size)).sum(1)
            total += size
        grown = losses / total - losses[0] / total
        return float(torch.trapezoid(grown, torch.tensor(counts).double() / count))


def layerwise_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the table of mean areas over layers, with the spread over seeds."""
    by_seed: defaultdict[tuple[str, str], defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_seed[str(row["by"]), str(row["removal"])][int(row["seed"])].append(float(row["area"]))  # type: ignore[arg-type]
    removals = list(dict.fromkeys(removal for _, removal in by_seed))
    header = ["criterion", *(f"{removal} ablation" for removal in removals), "published (CIFAR-10, VGG-16, zero)"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    names = dict.fromkeys(str(row["by"]) for row in rows)
    table = {name: [_over_layers(by_seed[name, removal]) for removal in removals] for name in names}
    for name in sorted(names, key=lambda name: table[name][0][1]):
        lines.append(f"| {' | '.join([name, *(text for text, _ in table[name]), str(PUBLISHED.get(name, ''))])} |")
    return lines


def _over_layers(by_seed: dict[int, list[float]]) -> tuple[str, float]:
    """Return the mean over layers with its spread over seeds, as text, and the key by which lines are sorted."""
    means = [mean(areas) for areas in by_seed.values()]
    return (spread_text(means, 3), mean(means)) if means else ("", 9.0)


def layerwise_figure(rows: list[Row]) -> Figure:
    """Return a plot of the area in every layer, zero and mean ablation, the mean over seeds."""
    areas: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        areas[str(row["by"]), str(row["removal"]), str(row["layer"])].append(float(row["area"]))  # type: ignore[arg-type]
    plot = Figure(figsize=(9, 3.4), layout="constrained")
    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    for axes, removal in zip(plot.subplots(1, 2, sharey=True), ("zero", "mean"), strict=True):
        for by in dict.fromkeys(str(row["by"]) for row in rows):
            areas_of_layers = [areas[by, removal, layer] for layer in layers]
            axes.plot(
                layers,
                [mean(values) if values else float("nan") for values in areas_of_layers],
                marker="o",
                markersize=3,
                label=by,
            )
        axes.set_title(f"{removal} ablation", fontsize=9)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    plot.axes[0].set_ylabel("area under the growth of the loss")
    plot.axes[1].legend(frameon=False, fontsize=6)
    return plot
