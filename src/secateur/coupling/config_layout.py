"""Cuts that the configuration of a model can say: groups of which one number counts the units, and lists of layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TiedGroups:
    """Groups that lose units together, since the same numbers of the configuration count the units of all of them.

    Args:
        groups: the names of the groups.
        steps: the number of steps in which all units would be removed; a step removes `size / steps` of each group.
        fields: the numbers of the configuration that follow, with their dense values.
    """

    groups: tuple[str, ...]
    steps: int
    fields: Mapping[str, int]


@dataclass(frozen=True)
class LayerList:
    """A list of layers of which the configuration says only the length.

    Args:
        path: the path of the `nn.ModuleList`.
        field: the number of the configuration that is its length.
        length: the length in the dense model.
    """

    path: str
    field: str
    length: int


@dataclass(frozen=True)
class ConfigLayout:
    """The cuts that the configuration of a model can say.

    Args:
        ties: groups that lose units together.
        layers: lists of layers that can get shorter.
        derived: numbers that the dense configuration leaves to be computed from others, with their values; a cut model
            needs them as they are.
    """

    ties: tuple[TiedGroups, ...] = ()
    layers: tuple[LayerList, ...] = ()
    derived: Mapping[str, int] = field(default_factory=dict)
