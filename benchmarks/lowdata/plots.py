"""The plots of docs/lowdata.md: accuracy against a cost."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from lowdata.labels import methods_of, repair_label

Row = dict[str, Any]


def plot_accuracies(rows: Sequence[Row], path: Path, label: str, cost: Callable[[Row], float | None]) -> None:
    """Write a plot of accuracies against a cost, with seed 0, a panel for each network.

    Args:
        rows: the rows of results.
        path: the SVG file.
        label: the title of the horizontal axes.
        cost: returns the cost of a row's network as a fraction of the dense network's, or None where it is unknown.
    """
    networks = list(dict.fromkeys(row["network"] for row in rows))
    mpl.rcParams["svg.hashsalt"] = "lowdata"
    figure, axes = plt.subplots(1, len(networks), figsize=(4 * len(networks), 3.4), squeeze=False)
    for axis, network in zip(axes[0], networks, strict=True):
        shown = [row for row in rows if row["network"] == network and row["seed"] == 0 and row["examples"] in (0, 256)]
        axis.axhline(next(row["accuracy"] for row in shown if row["method"] == "dense"), color="grey", lw=0.8)
        for method, repair in methods_of(shown):
            points = sorted(
                (x, row["accuracy"]) for row in shown
                if (row["method"], row["repair"]) == (method, repair) and (x := cost(row)) is not None
            )  # fmt: skip
            is_ours = method == "obs"
            if points and (is_ours or "L2" in method or "Taylor" in method) and points[-1][1] > 0:
                style = "o-" if is_ours else "x--"
                axis.plot(*zip(*points, strict=True), style, ms=3, label=f"{method}, {repair_label(repair)}")
        axis.set(title=network, xlabel=label, ylim=(0.5, 0.96))
    axes[0][0].set_ylabel("test accuracy")
    axes[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
