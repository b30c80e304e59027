"""Axes for the plots of objects; matplotlib is imported on use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 12


def axes_for(ax: "Axes | None", width: float, height: float) -> "Axes":
    """Return the axes of the user, or those of a new figure of pyplot, which notebooks show.

    Args:
        ax: the axes of the user, None for new ones.
        width: of the new figure, in inches.
        height: of the new figure, in inches.
    """
    if ax is not None:
        return ax
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def bars_of_two(axes: "Axes", names: list[str], whole: list[float], remaining: list[float], labels: list[str]) -> None:
    """Draw two horizontal bars for each name, a wide one behind a narrow one, the first name at the top.

    Args:
        axes: the axes.
        names: of the bars.
        whole: the lengths of the wide bars, such as what there is.
        remaining: the lengths of the narrow bars, such as what remains.
        labels: of both for the legend.
    """
    positions = range(len(names))
    axes.barh(positions, whole, color="lightgray", label=labels[0])
    axes.barh(positions, remaining, height=0.5, label=labels[1])
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.legend(frameon=False)
