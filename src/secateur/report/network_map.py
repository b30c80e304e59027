"""The picture of a network: a line for each group over the layers that it couples, in positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.coupling.group import Group
from secateur.coupling.kinds import USUAL
from secateur.coupling.network import Network
from secateur.report.line_chart import LineStyle, line_style
from secateur.utils.plurals import number_of

MAKES, READS, FOLLOWS = "produces", "consumes", "follows"
ROW, LANE, CHARACTER = 20, 18, 7.2


@dataclass(frozen=True)
class Stop:
    """A layer of a track: its position, and its role for the units."""

    y: float
    role: str


@dataclass(frozen=True)
class Track:
    """The line of one group over the layers.

    Args:
        text: the group in words.
        style: of the line.
        x: its position.
        stops: the layers that the group reaches.
    """

    text: str
    style: LineStyle
    x: float
    stops: tuple[Stop, ...]

    @property
    def top(self) -> float:
        """The position of the first layer."""
        return min(stop.y for stop in self.stops)

    @property
    def bottom(self) -> float:
        """The position of the last layer."""
        return max(stop.y for stop in self.stops)


@dataclass(frozen=True)
class LayerName:
    """The name of a layer and its position."""

    name: str
    y: float


@dataclass(frozen=True)
class NetworkMap:
    """Groups as lines over layers.

    Args:
        layers: the names of the layers, in order of execution.
        tracks: the lines of the groups.
        styles: the styles of the lines, by kind of unit.
        width: of the picture.
        height: of the picture.
        names_at: where the names of layers start.
    """

    layers: tuple[LayerName, ...]
    tracks: tuple[Track, ...]
    styles: tuple[LineStyle, ...]
    width: float
    height: float
    names_at: float


def network_map(network: Network) -> NetworkMap | None:
    """Return the picture of a network, or None where it has no groups."""
    if not network.groups:
        return None
    layers = _layers(network)
    roles = {group.name: _roles_of_layers(network, group, layers) for group in network.groups}
    lanes = _lanes(roles)
    styles = _styles([group.kind for group in network.groups])
    tracks = tuple(_track(network[name], styles[network[name].kind], lane, roles[name]) for name, lane in lanes.items())
    names_at = LANE * (1 + max(lanes.values())) + 12
    width = names_at + CHARACTER * max(map(len, layers)) + 8
    names = tuple(LayerName(layer, _row(index)) for index, layer in enumerate(layers))
    return NetworkMap(names, tracks, tuple(styles.values()), width, ROW * len(layers), names_at)


def _styles(kinds: Sequence[str]) -> dict[str, LineStyle]:
    """Return the style of each kind, the same one in all pictures for the usual kinds."""
    names = [*USUAL, *sorted(set(kinds) - set(USUAL))]
    return {kind: line_style(kind, names.index(kind)) for kind in dict.fromkeys(kinds)}


def _track(group: Group, style: LineStyle, lane: int, roles: Mapping[int, str]) -> Track:
    text = f"{group.name}: {group.size:,} {group.kind} over {number_of(len(roles), 'layer')}"
    stops = tuple(Stop(_row(index), role) for index, role in sorted(roles.items()))
    return Track(text, style, LANE * lane + 9, stops)


def _row(index: int) -> float:
    return ROW * index + ROW / 2


def _layers(network: Network) -> list[str]:
    """Return the modules with parameters or buffers in groups, in order of execution."""
    tensor_paths = {_path_of_tensor(member.tensor) for member in network.members}
    order = [
        _path_of_tensor(name) for node in network.program.nodes for source in node.all_input_nodes
        if (name := network.program.state_names.get(source))
    ]  # fmt: skip
    return [layer for layer in dict.fromkeys([*order, *sorted(tensor_paths)]) if layer in tensor_paths]


def _path_of_tensor(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _roles_of_layers(network: Network, group: Group, layers: Sequence[str]) -> dict[int, str]:
    """Return the role of each layer that a group reaches, by the index of the layer."""
    index_of = {layer: index for index, layer in enumerate(layers)}
    ranks = {tensor.name: len(tensor.shape) for tensor in network.tensors}
    roles: dict[int, str] = {}
    for member in group.members:
        index = index_of[_path_of_tensor(member.tensor)]
        role = FOLLOWS if ranks[member.tensor] < 2 else MAKES if member.is_producer else READS
        roles[index] = min(role, roles.get(index, FOLLOWS), key=(MAKES, READS, FOLLOWS).index)
    return roles


def _lanes(roles: Mapping[str, Mapping[int, str]]) -> dict[str, int]:
    """Return the leftmost lane of each group that is free over its layers, by the order of their first layers."""
    ends: list[int] = []
    lanes = {}
    for name in sorted(roles, key=lambda name: min(roles[name])):
        lane = next((at for at, end in enumerate(ends) if end < min(roles[name])), len(ends))
        ends[lane : lane + 1] = [max(roles[name])]
        lanes[name] = lane
    return lanes
