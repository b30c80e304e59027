"""The results as tables and plots: docs/lowdata.md."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

Row = dict[str, Any]
OURS = (("obs", "none"), ("obs", "refit"), ("obs", "refit, adapt"), ("obs", "refit, adapt, tune"))
PEERS = ("torch-pruning",)

ABOUT = """# Pruning with 256 unlabelled images

This page compares Secateur with torch-pruning at several budgets. The rows mix versions. Rows of Secateur are from
version 0.6.0, except that the rows `obs and shapley` and part of the latencies were added with version 0.7.0. Some
rows of torch-pruning are from earlier runs, which do not depend on Secateur. The default ridge of the refit changed
after these runs; with the newer ridge, the accuracy of the residual network (seed 0) changes by less than .1 point at
25 and 12 % of the MACs.

    python -m benchmarks lowdata --data DIR
    python -m benchmarks lowdata --page

The first command measures the rows of this page and needs torch-pruning. The second writes the page from them.
`DIR` holds the four files of Fashion-MNIST.

**Networks.** The three networks of `benchmarks/networks`, trained on Fashion-MNIST for four to twelve epochs.

**Data.** Each network is pruned with 256 images of the training set without their labels. The Taylor and Hessian
criteria of torch-pruning also receive the labels. Accuracy is measured on 10,000 other images. All runs use one
thread of an x86-64 CPU.

**Budgets.** Budgets are fractions of the dense network's MACs. The share that torch-pruning removes from each layer
is found by bisection.

**Methods of Secateur.** Units are ranked by the criterion `obs`. The allocation is the candidate whose outputs are
closest to the dense network's on a quarter of the images.

- *no repair*: the network as it is after the cut.
- *refit*: each layer is solved for in closed form.
- *refit, adapt*: the default of `prune`. After the refit, layers are optimised jointly with their consumers. The
  repair uses no labels, no augmentation, and no gradient of the whole network's loss.
- *refit, adapt, tune*: 300 further steps of distillation with flips and shifts. They are kept where they improve the
  result on held-out images.

**Methods of torch-pruning**, version 1.6.1.

- *no repair*: the network as it is after the cut.
- *batch norm*: the statistics of batch norm are estimated again on the same images.
- *300 steps*: the statistics are estimated again, then the same 300 steps of distillation follow, with batch norm in
  training mode, which gave the highest accuracy.
"""


def write_page(results: Path, docs: Path) -> None:
    rows = [json.loads(line) for path in sorted(results.glob("*.jsonl")) for line in path.read_text().splitlines()]
    parts = [
        ABOUT,
        "## Accuracy at each budget\n",
        ACCURACIES,
        _main(rows),
        "## Loss of accuracy, mean over networks and seeds\n",
        DROPS,
        _drops(rows),
    ]
    if any("(uniform)" in row["method"] for row in rows):
        parts += ["## Criteria under the same allocation and repair\n", RANKED, _rankings(rows)]
    if any(row["examples"] not in (0, 256) for row in rows):
        parts += ["## Number of images\n", EXAMPLES, _examples(rows)]
    parts += ["![accuracy against MACs](lowdata-macs.svg)"]
    if any("latency 32" in row for row in rows):
        parts += ["\n## Latency\n", LATENCY, _latencies(rows)]
        parts += ["![accuracy against latency](lowdata-latency.svg)"]
        _plot(
            rows, docs / "lowdata-latency.svg", "fraction of the time, batch of 32", lambda row: row.get("latency 32")
        )
    (docs / "lowdata.md").write_text("\n".join(parts) + "\n")
    _plot(rows, docs / "lowdata-macs.svg", "fraction of the MACs", lambda row: row["macs"])


ACCURACIES = """\
Test accuracy in %, the mean over seeds. The number of seeds is in brackets. Empty cells were not measured.
"""
DROPS = """\
Percentage points of test accuracy below the dense network: the mean over the three networks of the means over their
seeds, from the rows above.
"""
RANKED = """\
Test accuracy in %, seed 0, where every group loses the same share of its units. After the repair, `obs` has the highest
accuracy of the single criteria or is level with the highest, and its advantage is larger at smaller budgets. Without a
repair, `shapley` and `taylor` have higher accuracies than `obs` at 50 % of the MACs. `obs and shapley` ranks units by
the sum of their two ranks. After the repair, its accuracy lies between those of the two criteria, except that it is
higher at 12 % of the separable network and lower at 25 % of the VGG-like one.
"""
EXAMPLES = """\
Test accuracy in %, seed 0, of `obs` with *refit, adapt*, by the number of images used for pruning.
"""
LATENCY = """\
Time of the pruned network as a fraction of the dense network's, for one image and for 32, on one thread of a CPU whose
vectors hold 16 channels. The speed-up as a fraction of what the MACs allow is in brackets. Numbers of channels that do
not fill the CPU's vectors are slow; `round_to=16` avoids them. During the measurement, the only other work on the
machine was the same measurement of another network on the other core.
"""


def _methods(rows: Sequence[Row]) -> list[tuple[str, str]]:
    found = dict.fromkeys((row["method"], row["repair"]) for row in rows if row["examples"] == 256)
    return [key for key in found if "(uniform)" not in key[0]]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"


def _main(rows: Sequence[Row]) -> str:
    """Mean accuracy over seeds, by network."""
    parts = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network and row["examples"] in (0, 256)]
        dense = [row["accuracy"] for row in own if row["method"] == "dense"]
        budgets = sorted({row["keep"] for row in own if row["method"] == "obs"}, reverse=True)
        body = []
        for method, repair in _methods(own):
            cells = [
                [r["accuracy"] for r in own if (r["method"], r["repair"], r["keep"]) == (method, repair, keep)]
                for keep in budgets
            ]
            seeds = max(len(cell) for cell in cells)
            body.append([f"{method}, {_repair_name(repair)} ({seeds})", *(_percent(cell) for cell in cells)])
        text = ", ".join(f"{value:.2%}" for value in dense)
        parts.append(f"**{network}**, dense network {text}.\n")
        parts.append(_table(["", *(f"{keep:.0%}" for keep in budgets)], body))
    return "\n".join(parts)


def _repair_name(repair: str) -> str:
    return "no repair" if repair == "none" else repair


def _percent(values: Sequence[float]) -> str:
    return f"{mean(values) * 100:.1f}" if values else ""


def _drops(rows: Sequence[Row]) -> str:
    """Points below the dense network: the mean over networks of the means over their seeds."""
    dense = {(row["network"], row["seed"]): row["accuracy"] for row in rows if row["method"] == "dense"}
    lost: defaultdict[tuple[str, str, float], dict[str, list[float]]] = defaultdict(dict)
    for row in rows:
        if row["examples"] == 256:
            key = row["method"], row["repair"], row["keep"]
            points = (dense[row["network"], row["seed"]] - row["accuracy"]) * 100
            lost[key].setdefault(row["network"], []).append(points)
    chosen = [*OURS, ("torch-pruning L2", "batch norm"), ("torch-pruning L2", "300 steps")]
    budgets = (0.75, 0.5, 0.35, 0.25, 0.12)
    body = []
    for method, repair in [each for each in chosen if any(lost[*each, keep] for keep in budgets)]:
        cells = [[mean(own) for own in lost[method, repair, keep].values()] for keep in budgets]
        body.append([f"{method}, {_repair_name(repair)}", *(f"{mean(cell):.2f}" if cell else "" for cell in cells)])
    return _table(["points lost", *(f"{keep:.0%}" for keep in budgets)], body)


def _rankings(rows: Sequence[Row]) -> str:
    own = [row for row in rows if "(uniform)" in row["method"]]
    networks = list(dict.fromkeys(row["network"] for row in own))
    keeps = sorted({row["keep"] for row in own}, reverse=True)
    body = []
    for method in dict.fromkeys(row["method"] for row in own):
        for repair in ("none", "refit, adapt"):
            cells = [
                _percent([r["accuracy"] for r in own if (r["network"], r["method"], r["repair"], r["keep"])
                          == (network, method, repair, keep)])
                for network in networks for keep in keeps
            ]  # fmt: skip
            if any(cells):
                body.append([f"{method.removesuffix(' (uniform)')}, {_repair_name(repair)}", *cells])
    return _table(["", *(f"{network} {keep:.0%}" for network in networks for keep in keeps)], body)


def _examples(rows: Sequence[Row]) -> str:
    own = [row for row in rows if (row["method"], row["repair"]) == ("obs", "refit, adapt") and row["seed"] == 0]
    counts = sorted({row["examples"] for row in own})
    body = []
    for network in dict.fromkeys(row["network"] for row in own):
        for keep in (0.5, 0.25):
            cells = [
                _percent([r["accuracy"] for r in own
                          if (r["network"], r["keep"], r["examples"]) == (network, keep, count)])
                for count in counts
            ]  # fmt: skip
            body.append([f"{network}, {keep:.0%} of the MACs", *cells])
    return _table(["images; refit, adapt", *map(str, counts)], body)


def _latencies(rows: Sequence[Row]) -> str:
    own = [row for row in rows if "latency 32" in row and row["seed"] == 0 and row["examples"] == 256]
    body = [
        [f"{r['network']}, {r['method']}, {r['macs']:.0%} of the MACs",
         *(f"{r[f'latency {n}']:.2f} ({r['macs'] / r[f'latency {n}']:.2f})" for n in (1, 32))]
        for r in own
    ]  # fmt: skip
    return _table(["", "1 image", "32 images"], body)


def _plot(rows: Sequence[Row], path: Path, label: str, place: Callable[[Row], float | None]) -> None:
    networks = list(dict.fromkeys(row["network"] for row in rows))
    mpl.rcParams["svg.hashsalt"] = "lowdata"
    figure, axes = plt.subplots(1, len(networks), figsize=(4 * len(networks), 3.4), squeeze=False)
    for axis, network in zip(axes[0], networks, strict=True):
        own = [row for row in rows if row["network"] == network and row["seed"] == 0 and row["examples"] in (0, 256)]
        axis.axhline(next(row["accuracy"] for row in own if row["method"] == "dense"), color="grey", lw=0.8)
        for method, repair in _methods(own):
            points = sorted(
                (at, r["accuracy"]) for r in own
                if (r["method"], r["repair"]) == (method, repair) and (at := place(r)) is not None
            )  # fmt: skip
            is_ours = method == "obs"
            if points and (is_ours or "L2" in method or "Taylor" in method) and points[-1][1] > 0:
                axis.plot(
                    *zip(*points, strict=True),
                    "o-" if is_ours else "x--",
                    ms=3,
                    label=f"{method}, {_repair_name(repair)}",
                )
        axis.set(title=network, xlabel=label, ylim=(0.5, 0.96))
    axes[0][0].set_ylabel("test accuracy")
    axes[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
