"""The chart of a network: what each group costs."""

from typing import TYPE_CHECKING

from secateur.coupling.summary import network_dict
from secateur.utils.plots import axes_for, bars_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secateur.coupling.network import Network


def plot_group_costs(network: "Network", ax: "Axes | None" = None) -> "Axes":
    """Plot the MACs and parameters of each group, as fractions of the network's, in horizontal bars.

    Args:
        network: the network.
        ax: the axes to plot on; by default those of a new figure.
    """
    groups, dense = network_dict(network)["groups"], network.cost()
    axes = axes_for(ax, 6, 0.8 + 0.28 * len(groups))
    macs = [group["macs"] / max(dense.macs, 1) for group in groups.values()]
    params = [group["params"] / max(dense.params, 1) for group in groups.values()]
    bars_of_two(axes, list(groups), macs, params, ["MACs", "parameters"])
    axes.set_xlabel("fraction of the network")
    return axes
