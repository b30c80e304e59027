"""The search for what a configuration can say, on configurations whose shapes are written down."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling.config_layout import ConfigLayout, LayerList, TiedGroups
from secateur.surgery.config_numbers import layer_lists, shape_numbers
from secateur.surgery.configured_models import ConfiguredShapes
from secateur.surgery.tied_steps import kept_on_trial

Shapes = dict[str, tuple[int, ...]]


class WrittenShapes(ConfiguredShapes):
    """The shapes by the numbers and lists of layers that differ from the configuration's."""

    def __init__(self, numbers: Mapping[str, int], rule: Callable[..., Shapes]) -> None:
        super().__init__(nn.Module(), SimpleNamespace(**numbers))
        self.rule = rule

    def of(self, numbers: Mapping[str, int], kept_layers: Any = None) -> Shapes:
        return self.rule(dict(numbers), dict(kept_layers or {}))


@pytest.mark.parametrize("smaller", [15, 12, 8])
def test_a_number_is_tried_at_one_less_at_three_quarters_and_at_half(smaller: int) -> None:
    """A configuration may refuse what no number of heads divides."""

    def shapes_of(numbers: dict[str, int], _: Any) -> Shapes:
        width = numbers.get("width", 16)
        return {"weight": (width, 3)} if width in (16, smaller) else {}

    (number,) = shape_numbers(WrittenShapes({"width": 16}, shapes_of), {"weight": (16, 3)}, {})
    assert number.axes == {("weight", 0)}


LISTED = {"layers.0.weight": (4, 4), "layers.1.weight": (4, 4), "head.weight": (4, 4)}


@pytest.mark.parametrize(
    ("fewer", "lists"),
    [
        ({"layers.0.weight": (4, 4), "head.weight": (4, 4)}, [LayerList("layers", "depth", 2)]),
        ({"layers.0.weight": (4, 4), "head.weight": (2, 4)}, []),  # a further tensor depends on the number
        ({"layers.0.weight": (4, 4)}, []),
        ({}, []),
    ],
)
def test_a_number_counts_a_list_where_it_alone_loses_its_last_layer(fewer: Shapes, lists: list[LayerList]) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))
            self.head = nn.Linear(4, 4, bias=False)

    shapes = WrittenShapes({"depth": 2}, lambda numbers, kept: fewer if kept else LISTED)
    assert layer_lists(Listed(), shapes, LISTED) == lists


class Strict:
    """A configuration that checks itself."""

    def __init__(self) -> None:
        self.width = 8

    def validate(self) -> None:
        if self.width % 2:
            raise ValueError("width is odd")


def test_checks_of_a_configuration_decide_where_it_has_some() -> None:
    strict = ConfiguredShapes(nn.Module(), Strict())
    assert strict.changed_config({"width": 6}).width == 6
    assert strict.changed_config({"width": 5}) is None
    assert ConfiguredShapes(nn.Module(), SimpleNamespace(width=8)).changed_config({"width": 5}).width == 5


class Block(nn.Module):
    """Two layers beside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Tower(nn.Module):
    """Two residual blocks in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        for layer in self.layers:
            stream = layer(stream)
        output: Tensor = self.head(stream)
        return output


def test_a_trial_removes_half_of_the_steps_of_a_tie_and_one_block_of_a_list() -> None:
    network = sc.trace(Tower().eval(), torch.randn(3, 4), kinds=("neurons", "residual", "blocks"))
    inner = [group for group in network.groups if group.size == 8]
    assert len(inner) == 2
    tie = TiedGroups(tuple(group.name for group in inner), 4, {"width": 8})
    kept = kept_on_trial(network, ConfigLayout((tie,)))
    assert {name: units.tolist() for name, units in kept.items()} == {
        **{group.name: [4, 5, 6, 7] for group in inner},
        "blocks": [0],
    }
