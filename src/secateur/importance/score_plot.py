"""The plot of scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from secateur.options.globs import match_globs
from secateur.utils.plots import MOST_LABELS, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secateur.importance.scores import Scores


def plot_scores(scores: "Scores", ax: "Axes | None", groups: str | Sequence[str] | None) -> "Axes":
    """Plot the scores of groups in ascending order over the fraction of units, with one standard error as error bars.

    Args:
        scores: the scores.
        ax: the axes to plot on; by default those of a new figure.
        groups: globs of the names of groups; all by default.

    Raises:
        NameMatchError: a glob matches no group.
    """
    names = list(scores) if groups is None else match_globs(groups, scores, "group")
    axes = axes_for(ax, 5, 3.4)
    for name in names:
        group = scores[name]
        order = torch.argsort(group.values)
        fractions = ((torch.arange(len(order)) + 0.5) / len(order)).tolist()
        values, errors = group.values[order].tolist(), group.errors[order].tolist()
        yerr = errors if any(errors) else None
        axes.errorbar(fractions, values, yerr=yerr, marker=".", markersize=3, linewidth=0.8, label=name)
    axes.set_xlabel("fraction of the group's units, in ascending order")
    axes.set_ylabel(f"score by {scores.by}")
    if len(names) <= MOST_LABELS:
        axes.legend(frameon=False, fontsize="small")
    return axes
