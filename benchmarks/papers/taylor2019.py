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
from rows import spread_text
from torch.nn import functional as F

import secateur as sc
from papers.settings import Row, Settings
from papers.subjects import PaperSubject, load_paper_subject, training_batches
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


def taylor_rows(settings: Settings) -> Iterator[Row]:
    """Yield correlations with the oracle, then accuracies under the schedule."""
    for seed in settings.seeds[: 1 if settings.quick else None]:
        for network in NETWORKS[: 1 if settings.quick else None]:
            subject = load_paper_subject(settings, seed, network)
            names = settings.chosen(CRITERIA[:2] if settings.quick else CRITERIA)
            yield from correlation_rows(subject, 50 if settings.quick else 500, tuple(names))
        for network in SCHEDULED[: 1 if settings.quick else None]:
            subject = load_paper_subject(settings, seed, network)
            for by in settings.chosen(SCHEDULES[::3] if settings.quick else SCHEDULES):
                yield schedule_row(subject, by, 120 if settings.quick else STEPS)


def correlation_rows(subject: PaperSubject, count: int, names: tuple[str, ...]) -> Iterator[Row]:
    """Yield every criterion's agreement with the oracle on the same images, zero ablation."""
    images = subject.images(count)
    network = sc.trace(subject.model(), images[0][0][:2])
    oracle = sc.score(network, images, "oracle", ablation="zero", progress=False)
    for name in names:
        scores = sc.score(network, images, name, ablation="zero", progress=False)
        agreement_rows = agreements(scores, oracle)
        over_all = next(row for row in agreement_rows if row.group == ALL)
        layers = [row for row in agreement_rows if row.group != ALL and row.spearman == row.spearman]
        yield {
            "part": "oracle", "network": subject.name, "seed": subject.seed, "by": name,
            "pearson": over_all.pearson, "spearman": over_all.spearman, "kendall": over_all.kendall,
            **{f"{kind} in layers": sum(getattr(row, kind) for row in layers) / len(layers) for kind in KINDS},
        }  # fmt: skip


def schedule_row(subject: PaperSubject, by: str, steps: int) -> Row:
    """Train under the schedule, and return the row.

    Args:
        subject: the network.
        by: the criterion.
        steps: the number of training steps.
    """
    torch.manual_seed(subject.seed)
    model = subject.model()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)
    others = {} if by == "taylor" else {"by": by, "data": subject.images(100)}
    cutting = TaylorSchedule(model, subject.split.images[:2], optimizer, {"macs": KEEP}, every=EVERY, **others)
    draws = torch.Generator().manual_seed(subject.seed)
    reached = 0
    for step, (x, y) in enumerate(training_batches(subject.split, steps, BATCH, draws), 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 if step < 0.7 * steps else 1e-3
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        reached = reached or (step if cutting.is_finished else 0)
    small = cutting.cut()
    kept_macs = sc.trace(small.eval(), subject.split.images[:2]).cost().macs / cutting.network.cost().macs
    return {
        "part": "schedule", "network": subject.name, "seed": subject.seed, "by": by, "macs": kept_macs,
        "reached": reached, "accuracy": subject.accuracy(small),
    }  # fmt: skip


def taylor_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the tables of correlations and of accuracies."""
    return [
        *_correlation_lines([row for row in rows if row["part"] == "oracle"]),
        *_schedule_lines([row for row in rows if row["part"] == "schedule"]),
        "",
        "Published: the first-order gate's correlation with the oracle is above .93 (ResNet-101, ImageNet).",
    ]


def _correlation_lines(rows: list[Row]) -> list[str]:
    keys = (*KINDS, *(f"{kind} in layers" for kind in KINDS))
    lines: list[str] = []
    for network in dict.fromkeys(str(row["network"]) for row in rows):
        of_network = [row for row in rows if row["network"] == network]
        lines += [f"Correlation with the oracle, {network} network:", "", "| criterion | " + " | ".join(keys) + " |"]
        lines.append("|---" * (len(keys) + 1) + "|")
        table = {
            by: [_spread_of_criterion(of_network, by, key) for key in keys]
            for by in dict.fromkeys(str(row["by"]) for row in of_network)
        }
        for by in sorted(table, key=lambda by: -table[by][1][1]):
            lines.append(f"| {by} | " + " | ".join(cell[0] for cell in table[by]) + " |")
        lines.append("")
    return lines


def _schedule_lines(rows: list[Row]) -> list[str]:
    accuracies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        accuracies[str(row["network"]), str(row["by"])].append(100 * float(row["accuracy"]))  # type: ignore[arg-type]
    return [
        f"Test accuracy after the schedule, {KEEP:.0%} of the MACs kept:",
        "",
        "| network | criterion | accuracy |",
        "|---|---|---|",
        *(f"| {network} | {by} | {spread_text(values, 1)} |" for (network, by), values in accuracies.items()),
    ]


def taylor_figure(rows: list[Row]) -> Figure:
    """Return a plot of Spearman's correlation with the oracle over all units, by criterion and network."""
    measured = [row for row in rows if row["part"] == "oracle"]
    names = list(dict.fromkeys(str(row["by"]) for row in measured))
    networks = list(dict.fromkeys(str(row["network"]) for row in measured))
    plot = Figure(figsize=(8, 3.4), layout="constrained")
    axes = plot.subplots()
    for index, network in enumerate(networks):
        correlations = [
            [float(r["spearman"]) for r in measured if (r["by"], r["network"]) == (by, network)] for by in names
        ]  # type: ignore[arg-type]
        heights, spreads = (
            [mean(e) if e else math.nan for e in correlations],
            [stdev(e) if len(e) > 1 else 0.0 for e in correlations],
        )
        at = [number + 0.8 * index / len(networks) for number in range(len(names))]
        axes.bar(at, heights, width=0.76 / len(networks), yerr=spreads, label=network, error_kw={"elinewidth": 0.8})
    axes.set_xticks([n + 0.3 for n in range(len(names))], names, rotation=45, ha="right", fontsize=7)
    axes.set_ylabel("Spearman with the oracle")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return plot


def _spread_of_criterion(rows: list[Row], by: str, key: str) -> tuple[str, float]:
    """Return the mean with its spread over seeds, as text, and the mean."""
    values = [float(row[key]) for row in rows if row["by"] == by]  # type: ignore[arg-type]
    return spread_text(values, 3), mean(values)
