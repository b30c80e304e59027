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

ABOUT = """# A few hundred unlabelled images, and what is left

    python -m benchmarks lowdata --data DIR
    python -m benchmarks lowdata --page

Fashion-MNIST networks of `benchmarks/networks` (trained for four to twelve epochs), 256 images of the training set
without their labels (the peer's Taylor and Hessian get them), test accuracy on 10,000 others, one thread. *refit,
adapt* is what `prune` does by default: ranked by `obs`, allocated by what is nearest to the dense network on a
quarter of the images, refitted, layers solved for with their readers: no loss of the network is trained on, no
labels, no augmentation. *refit* alone is solved layer by layer, in closed form. *tune* adds 300 steps of distillation
with flips and shifts, where they help on the images held out. The peer is torch-pruning 1.6.1, as it is, with batch
norm re-estimated on the same images, and with that and the same 300 steps (batch norm in training mode, its best
setting). Budgets are in MACs; torch-pruning's share is found by bisection. Rows are of 0.6.0, the peer's partly of
earlier runs, nothing of Secateur being in them. The ridge that came after moves the residual network, seed 0, by less
than .1 point at 25 and 12 %.
"""


def write_page(results: Path, docs: Path) -> None:
    rows = [json.loads(line) for path in sorted(results.glob("*.jsonl")) for line in path.read_text().splitlines()]
    parts = [
        ABOUT,
        "## Accuracy at each budget\n",
        _main(rows),
        "## Drop, mean over networks and seeds\n",
        _drops(rows),
    ]
    if any("(uniform)" in row["method"] for row in rows):
        parts += ["## Which units go, after the same repair\n", RANKED, _rankings(rows)]
    if any(row["examples"] not in (0, 256) for row in rows):
        parts += ["## How many images\n", _examples(rows)]
    parts += ["![accuracy against MACs](lowdata-macs.svg)"]
    if any("latency 32" in row for row in rows):
        parts += ["\n## What is faster\n", LATENCY, _latencies(rows)]
        parts += ["![accuracy against latency](lowdata-latency.svg)"]
        _plot(rows, docs / "lowdata-latency.svg", "time left, batch of 32", lambda row: row.get("latency 32"))
    (docs / "lowdata.md").write_text("\n".join(parts) + "\n")
    _plot(rows, docs / "lowdata-macs.svg", "MACs left", lambda row: row["macs"])


RANKED = """The same share of every group goes, seed 0; as it is cut and repaired. `obs` is ahead or level after the
repair, and by more the less is left; Shapley values and Taylor are ahead while nothing is repaired. Both together, by
the sum of a unit's ranks, are between the two, but for an eighth of the separable network.
"""
LATENCY = """The part of the dense network's time that is left, for one image and for 32. In brackets: the speed-up as a
part of what the MACs would allow. Numbers of channels that do not fill the processor's vectors are slow, here of 16,
hence `round_to=16`. Taken when nothing else ran, but the same for another network on the other core.
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
            body.append([f"{method}, {_said(repair)} ({seeds})", *(_percent(cell) for cell in cells)])
        text = ", ".join(f"{value:.2%}" for value in dense)
        parts.append(f"**{network}**, dense {text}. In brackets how many seeds.\n")
        parts.append(_table(["", *(f"{keep:.0%}" for keep in budgets)], body))
    return "\n".join(parts)


def _said(repair: str) -> str:
    return "as it is" if repair == "none" else repair


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
        body.append([f"{method}, {_said(repair)}", *(f"{mean(cell):.2f}" if cell else "" for cell in cells)])
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
                body.append([f"{method.removesuffix(' (uniform)')}, {_said(repair)}", *cells])
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
                    *zip(*points, strict=True), "o-" if is_ours else "x--", ms=3, label=f"{method}, {_said(repair)}"
                )
        axis.set(title=network, xlabel=label, ylim=(0.5, 0.96))
    axes[0][0].set_ylabel("test accuracy")
    axes[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
