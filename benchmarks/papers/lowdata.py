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

import secateur as sc
from papers.layerwise import PROTOCOL, spread
from papers.settings import Row, Settings
from papers.subjects import Subject, subject, tuned_shortly
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


def rows(settings: Settings) -> Iterator[Row]:
    """The accuracy at the end of every run."""
    seeds, counts, kept = (
        (settings.seeds[:1], (100,), (0.5,)) if settings.quick else (settings.seeds, settings.images or IMAGES, KEPT)
    )
    names = settings.chosen(("taylor", "random") if settings.quick else tuple(CRITERIA))
    subjects = [subject(settings, seed) for seed in seeds]
    for it in subjects:
        yield {"by": "dense", "seed": it.seed, "accuracy": it.accuracy(it.model())}
    for count, it, keep, name in itertools.product(counts, subjects, kept, names):
        yield from runs(it, name, count, keep)


def runs(it: Subject, name: str, count: int, keep: float) -> Iterator[Row]:
    """One criterion without and with fine-tuning."""
    for tuned in (False, True):
        model = it.model()
        images = it.images(count)
        for group in reversed([group.name for group in sc.trace(model, images[0][0][:2]).groups]):
            model = without(model, group, images, CRITERIA[name], keep, it.seed)
            if tuned:
                tuned_shortly(model, images)
        row = {"by": name, "seed": it.seed, "images": count, "keep": keep, "tuned": tuned}
        yield row | {"accuracy": it.accuracy(model)}


def without(
    model: torch.nn.Module, group: str, images: list[tuple[torch.Tensor, torch.Tensor]], given: dict[str, object],
    keep: float, seed: int,
) -> torch.nn.Module:  # fmt: skip
    """The model without the lowest of one group's units, ranked on the model as it is."""
    network = sc.trace(model, images[0][0][:2])
    scores = sc.score(network, images, only=group, seed=seed, progress=False, **{"ablation": "zero", **given})
    size = network[group].size
    kept = scores[group].values.argsort(stable=True)[size - max(1, round(keep * size)) :].sort().values
    plan = Plan(network, {group: kept}, scores.means, network.cost({group: kept}), network.cost(), {"units": keep})
    return sc.cut(model, plan)


def page(rows: list[Row]) -> list[str]:
    """Accuracy by criterion, images and share, without and with fine-tuning."""
    found: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        found[row["by"], row.get("tuned"), row.get("images"), row.get("keep")].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    dense = spread(found["dense", None, None, None], 1)[0]
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
                cells = (found[name, tuned, count, keep] for keep in kept)
                lines.append(f"| {name} | " + " | ".join(spread(c, 1)[0] if c else "" for c in cells) + " |")
            lines.append("")
    return [*lines, "Published (CIFAR-10, VGG-16-BN, with fine-tuning): " + _published()]


def figure(rows: list[Row]) -> Figure:
    """Accuracy against the images, one plot for each share kept, without (dashed) and with fine-tuning."""
    found: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["by"] != "dense":
            found[row["keep"], row["tuned"], row["by"], row["images"]].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    kept = sorted({key[0] for key in found}, reverse=True)  # type: ignore[type-var]
    drawn = Figure(figsize=(3.2 * len(kept), 3.2), layout="constrained")
    for axes, keep in zip(drawn.subplots(1, len(kept), sharey=True, squeeze=False)[0], kept, strict=True):
        for number, by in enumerate(dict.fromkeys(key[2] for key in found)):
            for tuned in (False, True):
                points = sorted((key[3], mean(each)) for key, each in found.items() if key[:3] == (keep, tuned, by))  # type: ignore[type-var]
                style = {"color": f"C{number}", "linestyle": "-" if tuned else "--", "marker": "o", "markersize": 3}
                axes.plot(*zip(*points, strict=True), label=by if tuned else None, **style)
        axes.set_title(f"{keep:.0%} of every layer's units", fontsize=9)
        axes.set_xlabel("images")
        axes.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_ylabel("accuracy, %")
    drawn.axes[-1].legend(frameon=False, fontsize=6)
    return drawn


def _published() -> str:
    names = dict.fromkeys(name for name, _ in PUBLISHED)
    return "; ".join(f"{name} {' / '.join(str(PUBLISHED[name, keep]) for keep in KEPT)}" for name in names) + "."
