"""Low data (Ancona et al. 2020): layers from the last to the first, scores computed again after each layer.

Each layer is pruned without fine-tuning, or followed by a short fine-tuning with early stopping. The figures are test
accuracies in %, by the share of units that is kept. The criteria are those of Secateur. `shapley` and
`shapley, mean removal` are the default estimator with `aggregate="robust"`, under zero and mean ablation.
`shapley, the paper's protocol` is `protocol="paper"`: five shared orders, and numpy's mean and two standard
deviations.

The paper's second low-data experiment is not repeated here: CUB-200-2011 with 100 images, no tuning, 20 % of
VGG-16-BN removed (published: Shapley 56.2, Taylor 50.1, sensitivity 38.6, APoZ 14.9, weight norm 2.9, random 2.8 %).
Its images and a network trained on them are not part of this project; `--dataset cub200 --data DIR --weights FILE`
runs it on your own copy.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

import torch
from matplotlib.figure import Figure
from rows import spread_text

import secateur as sc
from papers.layerwise import PROTOCOL
from papers.settings import Row, Settings
from papers.subjects import PaperSubject, load_paper_subject, tune_shortly
from secateur.coupling.plan import Plan

IMAGES = (100, 1000, 250, 500)
KEPT = (0.75, 0.5, 0.25)
CRITERIA: dict[str, dict[str, object]] = {
    "shapley": {"by": "shapley", "aggregate": "robust"},
    PROTOCOL: {"by": "shapley", "protocol": "paper"},
    "shapley, mean removal": {"by": "shapley", "aggregate": "robust", "ablation": "mean"},
    "taylor": {"by": "taylor"},
    "sensitivity": {"by": "sensitivity"},
    "apoz": {"by": "apoz"},
    "l1": {"by": "l1"},
    "random": {"by": "random"},
}
PUBLISHED = {
    ("shapley", 0.75): 88.5, ("shapley", 0.5): 72.1, ("shapley", 0.25): 32.5, ("random", 0.75): 87.0,
    ("random", 0.5): 63.6, ("random", 0.25): 13.0, ("taylor", 0.75): 80.5, ("taylor", 0.5): 69.7,
    ("taylor", 0.25): 21.5,
}  # fmt: skip


def low_data_rows(settings: Settings) -> Iterator[Row]:
    """Yield the accuracy at the end of every run."""
    seeds, counts, kept = (
        (settings.seeds[:1], (100,), (0.5,)) if settings.quick else (settings.seeds, settings.images or IMAGES, KEPT)
    )
    names = settings.chosen(("taylor", "random") if settings.quick else tuple(CRITERIA))
    subjects = [load_paper_subject(settings, seed) for seed in seeds]
    for subject in subjects:
        yield {"by": "dense", "seed": subject.seed, "accuracy": subject.accuracy(subject.model())}
    for count, subject, keep, name in itertools.product(counts, subjects, kept, names):
        yield from runs_of_criterion(subject, name, count, keep)


def runs_of_criterion(subject: PaperSubject, name: str, count: int, keep: float) -> Iterator[Row]:
    """Yield the rows of a criterion without and with fine-tuning."""
    for tuned in (False, True):
        model = subject.model()
        images = subject.images(count)
        for group in reversed([group.name for group in sc.trace(model, images[0][0][:2]).groups]):
            model = cut_group(model, group, images, CRITERIA[name], keep, subject.seed)
            if tuned:
                tune_shortly(model, images)
        row = {"by": name, "seed": subject.seed, "images": count, "keep": keep, "tuned": tuned}
        yield row | {"accuracy": subject.accuracy(model)}


def cut_group(
    model: torch.nn.Module, group: str, images: list[tuple[torch.Tensor, torch.Tensor]], criterion: dict[str, object],
    keep: float, seed: int,
) -> torch.nn.Module:  # fmt: skip
    """Cut the lowest units of one group, ranked on the current model.

    Args:
        model: the model.
        group: the group.
        images: the images to rank with.
        criterion: the criterion and its options.
        keep: the share of the units that is kept.
        seed: the seed of the scores.
    """
    network = sc.trace(model, images[0][0][:2])
    scores = sc.score(network, images, only=group, seed=seed, progress=False, **{"ablation": "zero", **criterion})
    size = network[group].size
    kept = scores[group].values.argsort(stable=True)[size - max(1, round(keep * size)) :].sort().values
    plan = Plan(network, {group: kept}, scores.means, network.cost({group: kept}), network.cost(), {"units": keep})
    return sc.cut(model, plan)


def low_data_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the tables of accuracies by criterion, images and share, without and with fine-tuning."""
    accuracies: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        accuracies[row["by"], row.get("tuned"), row.get("images"), row.get("keep")].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    dense = spread_text(accuracies["dense", None, None, None], 1)
    lines = [f"Accuracy of the dense networks: {dense} %.", ""]
    names = dict.fromkeys(str(row["by"]) for row in rows if row["by"] != "dense")
    kept = sorted({float(row["keep"]) for row in rows if "keep" in row}, reverse=True)  # type: ignore[arg-type]
    for tuned in (False, True):
        for count in sorted({int(row["images"]) for row in rows if "images" in row}):  # type: ignore[call-overload]
            lines += [f"{count} images, {'with short' if tuned else 'no'} fine-tuning:", ""]
            lines += [
                "| criterion | " + " | ".join(f"{keep:.0%}" for keep in kept) + " |",
                "|---" * (len(kept) + 1) + "|",
            ]
            for name in names:
                cells = (accuracies[name, tuned, count, keep] for keep in kept)
                lines.append(f"| {name} | " + " | ".join(spread_text(values, 1) for values in cells) + " |")
            lines.append("")
    return [*lines, "Published (CIFAR-10, VGG-16-BN, with fine-tuning): " + _published()]


def low_data_figure(rows: list[Row]) -> Figure:
    """Return plots of the accuracy against the images for each share, without (dashed) and with fine-tuning."""
    accuracies: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["by"] != "dense":
            accuracies[row["keep"], row["tuned"], row["by"], row["images"]].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    kept = sorted({key[0] for key in accuracies}, reverse=True)  # type: ignore[type-var]
    plot = Figure(figsize=(3.2 * len(kept), 3.2), layout="constrained")
    for axes, keep in zip(plot.subplots(1, len(kept), sharey=True, squeeze=False)[0], kept, strict=True):
        for number, by in enumerate(dict.fromkeys(key[2] for key in accuracies)):
            for tuned in (False, True):
                points = sorted(
                    (key[3], mean(values)) for key, values in accuracies.items() if key[:3] == (keep, tuned, by)
                )  # type: ignore[type-var]
                style = {"color": f"C{number}", "linestyle": "-" if tuned else "--", "marker": "o", "markersize": 3}
                axes.plot(*zip(*points, strict=True), label=by if tuned else None, **style)
        axes.set_title(f"{keep:.0%} of every layer's units", fontsize=9)
        axes.set_xlabel("images")
        axes.spines[["top", "right"]].set_visible(False)
    plot.axes[0].set_ylabel("accuracy, %")
    plot.axes[-1].legend(frameon=False, fontsize=6)
    return plot


def _published() -> str:
    names = dict.fromkeys(name for name, _ in PUBLISHED)
    return "; ".join(f"{name} {' / '.join(str(PUBLISHED[name, keep]) for keep in KEPT)}" for name in names) + "."
