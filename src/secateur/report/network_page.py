"""The groups of a network as one HTML page: a line for each group over the layers that it couples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.allocation.reachable import reachable
from secateur.coupling.network import Group, Network
from secateur.coupling.summary import share
from secateur.report.pages import figure_svg, new_figure, render_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS: Mapping[str, str] = {
    "channels": "#2f6f4f",
    "neurons": "#3b76b0",
    "residual": "#b5472f",
    "heads": "#8a5fa8",
    "bundles": "#c28a1c",
    "blocks": "#55626f",
}
MAKES, READS, FOLLOWS = "produces", "consumes", "follows"


@dataclass(frozen=True)
class Track:
    """The line of one group over the layers.

    Args:
        group: the group.
        stops: the role of each layer that the group reaches, by the index of the layer.
        lane: the column of the line.
    """

    group: Group
    stops: Mapping[int, str]
    lane: int


def network_page(network: Network) -> str:
    """Return a self-contained page: groups over layers, their costs, frozen layers, and budgets within reach.

    Examples:
        >>> import torch, secateur as sc
        >>> from secateur.report.network_page import network_page
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> "<svg" in network_page(sc.trace(model, torch.randn(2, 4)))
        True
    """
    layers = _layers(network)
    tracks = _tracks(network, layers)
    return render_page(
        "network.html",
        network=network,
        cost=network.cost(),
        rows=[(group, *share(network, group)) for group in network.groups],
        picture=figure_svg(_figure(layers, tracks)) if tracks else "",
        reachable=reachable(network) if network.groups else "",
    )


def _layers(network: Network) -> list[str]:
    """Return the modules with parameters or buffers in groups, in order of execution."""
    owned = {_path_of_tensor(member.tensor) for member in network.members}
    order = [
        _path_of_tensor(name) for node in network.program.nodes for used in node.all_input_nodes
        if (name := network.program.state_names.get(used))
    ]  # fmt: skip
    return [layer for layer in dict.fromkeys([*order, *sorted(owned)]) if layer in owned]


def _path_of_tensor(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _tracks(network: Network, layers: Sequence[str]) -> list[Track]:
    """Return a line for each group, in the leftmost lane that is free over its layers."""
    index_of = {layer: index for index, layer in enumerate(layers)}
    ranks = {tensor.name: len(tensor.shape) for tensor in network.tensors}
    ends: list[int] = []
    tracks = []
    for group in sorted(
        network.groups, key=lambda group: min(index_of[_path_of_tensor(axis.tensor)] for axis in group.members)
    ):
        stops: dict[int, str] = {}
        for member in group.members:
            index = index_of[_path_of_tensor(member.tensor)]
            role = FOLLOWS if ranks[member.tensor] < 2 else MAKES if member.is_producer else READS
            stops[index] = min(role, stops.get(index, FOLLOWS), key=(MAKES, READS, FOLLOWS).index)
        lane = next((at for at, end in enumerate(ends) if end < min(stops)), len(ends))
        ends[lane : lane + 1] = [max(stops)]
        tracks.append(Track(group, stops, lane))
    return tracks


def _figure(layers: Sequence[str], tracks: Sequence[Track]) -> "Figure":
    from matplotlib.lines import Line2D

    lanes = 1 + max(track.lane for track in tracks)
    figure = new_figure(1.5 + 0.3 * lanes + 0.07 * max(map(len, layers)), 1.2 + 0.21 * len(layers))
    axes = figure.subplots()
    for track in tracks:
        _draw(axes, track)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_xticks([])
    axes.set_xlim(-0.7, lanes - 0.3)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.grid(axis="y", color="#eef1f4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    kinds = dict.fromkeys(track.group.kind for track in tracks)
    handles = [Line2D([], [], color=COLORS[kind], label=kind, linewidth=2) for kind in kinds]
    handles += [Line2D([], [], color="#555", linestyle="", label=label, **style) for label, style in _STYLES.items()]
    axes.legend(handles=handles, frameon=False, fontsize=7, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


_STYLES: Mapping[str, Mapping[str, Any]] = {
    MAKES: {"marker": "o", "markersize": 6},
    READS: {"marker": "o", "markersize": 6, "markerfacecolor": "white"},
    FOLLOWS: {"marker": "_", "markersize": 6},
}


def _draw(axes: "Axes", track: Track) -> None:
    color = COLORS[track.group.kind]
    axes.plot([track.lane] * 2, [min(track.stops), max(track.stops)], color=color, linewidth=1.8, zorder=1)
    for index, role in track.stops.items():
        axes.plot([track.lane], [index], color=color, linestyle="", zorder=2, **_STYLES[role])
