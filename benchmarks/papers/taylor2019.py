"""Taylor 2019 (Molchanov et al.): agreement of criteria with the oracle, and the iterative schedule.

The first tables give the correlation of each criterion with the oracle over all units, and its mean over layers, on
500 images under zero ablation. The last table gives the test accuracy in % after the schedule: every ten training
steps 2 % of the units are removed, until 40 % of the MACs remain, and training continues to 600 steps.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

import secateur as sc
from papers.layerwise import spread
from papers.settings import Row, Settings
from papers.subjects import Subject, batches, subject
from secateur.importance.rank_correlation import ALL, agreements
from secateur.training.taylor_schedule import TaylorSchedule

CRITERIA = (
    "taylor-gates", "taylor-gates-second", "taylor-gates-examples", "taylor-gates-norms", "taylor-gates-before-norm",
    "taylor-weights", "taylor-weights-second", "taylor",
    "sensitivity", "integrated-gradients", "shapley", "obs", "lean", "fpgm", "l2", "apoz", "random",
)  # fmt: skip
NETWORKS = ("residual", "vgg", "lenet")
SCHEDULED = ("residual", "lenet")
SCHEDULES = ("taylor", "oracle", "l2", "random")
KINDS = ("pearson", "spearman", "kendall")
KEEP = 0.4
EVERY, STEPS, BATCH = 10, 600, 64


def rows(settings: Settings) -> Iterator[Row]:
    """Correlations with the oracle, then accuracies under the schedule."""
    for seed in settings.seeds[: 1 if settings.quick else None]:
        for network in NETWORKS[: 1 if settings.quick else None]:
            it = subject(settings, seed, network)
            names = settings.chosen(CRITERIA[:2] if settings.quick else CRITERIA)
            yield from correlations(it, 50 if settings.quick else 500, tuple(names))
        for network in SCHEDULED[: 1 if settings.quick else None]:
            it = subject(settings, seed, network)
            for by in settings.chosen(SCHEDULES[::3] if settings.quick else SCHEDULES):
                yield schedule(it, by, 120 if settings.quick else STEPS)


def correlations(it: Subject, count: int, names: tuple[str, ...]) -> Iterator[Row]:
    """Yield every criterion's agreement with the oracle on the same images, zero ablation."""
    images = it.images(count)
    network = sc.trace(it.model(), images[0][0][:2])
    oracle = sc.score(network, images, "oracle", ablation="zero", progress=False)
    for name in names:
        scores = sc.score(network, images, name, ablation="zero", progress=False)
        found = agreements(scores, oracle)
        whole = next(row for row in found if row.group == ALL)
        layers = [row for row in found if row.group != ALL and row.spearman == row.spearman]
        yield {
            "part": "oracle", "network": it.name, "seed": it.seed, "by": name,
            "pearson": whole.pearson, "spearman": whole.spearman, "kendall": whole.kendall,
            **{f"{kind} in layers": sum(getattr(row, kind) for row in layers) / len(layers) for kind in KINDS},
        }  # fmt: skip


def schedule(it: Subject, by: str, steps: int) -> Row:
    """Trained on while 2 % of the units go every ten steps, until 40 % of the MACs are left, and then to the end."""
    torch.manual_seed(it.seed)
    model = it.model()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)
    others = {} if by == "taylor" else {"by": by, "data": it.images(100)}
    cutting = TaylorSchedule(model, it.split.images[:2], optimizer, {"macs": KEEP}, every=EVERY, **others)
    draws = torch.Generator().manual_seed(it.seed)
    done = 0
    for step, (x, y) in enumerate(batches(it.split, steps, BATCH, draws), 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 if step < 0.7 * steps else 1e-3
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        done = done or (step if cutting.is_finished else 0)
    small = cutting.cut()
    left = sc.trace(small.eval(), it.split.images[:2]).cost().macs / cutting.network.cost().macs
    return {
        "part": "schedule", "network": it.name, "seed": it.seed, "by": by, "macs": left, "reached": done,
        "accuracy": it.accuracy(small),
    }  # fmt: skip


def page(rows: list[Row]) -> list[str]:
    """Two tables."""
    lines: list[str] = []
    for network in dict.fromkeys(str(row["network"]) for row in rows if row["part"] == "oracle"):
        own = [row for row in rows if row["part"] == "oracle" and row["network"] == network]
        keys = (*KINDS, *(f"{kind} in layers" for kind in KINDS))
        lines += [f"Correlation with the oracle, {network} network:", "", "| criterion | " + " | ".join(keys) + " |"]
        lines.append("|---" * (len(keys) + 1) + "|")
        table = {by: [_of(own, by, key) for key in keys] for by in dict.fromkeys(str(row["by"]) for row in own)}
        for by in sorted(table, key=lambda by: -table[by][1][1]):
            lines.append(f"| {by} | " + " | ".join(cell[0] for cell in table[by]) + " |")
        lines.append("")
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["part"] == "schedule":
            found[str(row["network"]), str(row["by"])].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    lines += [
        f"Test accuracy after the schedule, {KEEP:.0%} of the MACs kept:",
        "",
        "| network | criterion | accuracy |",
        "|---|---|---|",
    ]
    lines += [f"| {network} | {by} | {spread(each, 1)[0]} |" for (network, by), each in found.items()]
    return [
        *lines,
        "",
        "Published: the first-order gate's correlation with the oracle is above .93 (ResNet-101, ImageNet).",
    ]


def figure(rows: list[Row]) -> Figure:
    """Spearman's correlation with the oracle over all units, by criterion and network."""
    own = [row for row in rows if row["part"] == "oracle"]
    names = list(dict.fromkeys(str(row["by"]) for row in own))
    networks = list(dict.fromkeys(str(row["network"]) for row in own))
    drawn = Figure(figsize=(8, 3.4), layout="constrained")
    axes = drawn.subplots()
    for place, network in enumerate(networks):
        each = [[float(r["spearman"]) for r in own if (r["by"], r["network"]) == (by, network)] for by in names]  # type: ignore[arg-type]
        heights, spreads = [mean(e) if e else math.nan for e in each], [stdev(e) if len(e) > 1 else 0.0 for e in each]
        at = [number + 0.8 * place / len(networks) for number in range(len(names))]
        axes.bar(at, heights, width=0.76 / len(networks), yerr=spreads, label=network, error_kw={"elinewidth": 0.8})
    axes.set_xticks([n + 0.3 for n in range(len(names))], names, rotation=45, ha="right", fontsize=7)
    axes.set_ylabel("Spearman with the oracle")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn


def _of(rows: list[Row], by: str, key: str) -> tuple[str, float]:
    return spread([float(row[key]) for row in rows if row["by"] == by])  # type: ignore[arg-type]
