"""The numbers of a configuration that shapes of tensors depend on, found by building models of other numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from secateur.coupling.config_layout import LayerList
from secateur.surgery.configured_models import ConfiguredShapes, Shapes
from secateur.surgery.model_config import config_numbers, open_numbers

Axis = tuple[str, int]
TRIED = (6, 10)


@dataclass(frozen=True)
class ShapeNumber:
    """A number of a configuration.

    Args:
        name: its name.
        value: its dense value.
        axes: the axes of tensors that are shorter where it is smaller; empty where no shape depends on it.
    """

    name: str
    value: int
    axes: frozenset[Axis]


def derived_numbers(shapes: ConfiguredShapes, dense: Shapes) -> dict[str, int]:
    """Return the numbers that a configuration leaves open (None), which shapes depend on, with their values.

    Such a number is computed from others. Once it is set, it no longer follows them.

    Args:
        shapes: builds models.
        dense: the shapes of the dense model.
    """
    derived_values: dict[str, int] = {}
    for name in open_numbers(shapes.config):
        for number in TRIED:
            axes = changed_axes(dense, shapes.of({name: number}))
            values = {length * number / new for length, new in axes.values()} if axes else set()
            value = values.pop() if len(values) == 1 else 0.0
            if value and value.is_integer() and shapes.of({name: int(value)}) == dense:
                derived_values[name] = int(value)
                break
    return derived_values


def changed_axes(dense: Shapes, other: Shapes) -> dict[Axis, tuple[int, int]] | None:
    """Return the lengths before and after of the axes that differ; None where tensors are not the same ones."""
    if dense.keys() != other.keys() or any(len(dense[name]) != len(other[name]) for name in dense):
        return None
    return {
        (name, axis): (old, new)
        for name in dense
        for axis, (old, new) in enumerate(zip(dense[name], other[name], strict=True))
        if old != new
    }


def shape_numbers(shapes: ConfiguredShapes, dense: Shapes, derived: Mapping[str, int]) -> list[ShapeNumber]:
    """Return the numbers of a configuration, with the axes that depend on each.

    Args:
        shapes: builds models.
        dense: the shapes of the dense model.
        derived: numbers that are set.
    """
    numbers = {**config_numbers(shapes.config), **derived}
    return [
        ShapeNumber(name, value, _axes_of(shapes, dense, {**derived, name: value}, name))
        for name, value in numbers.items()
        if value > 1 and "token" not in name
    ]


def _axes_of(shapes: ConfiguredShapes, dense: Shapes, numbers: Mapping[str, int], name: str) -> frozenset[Axis]:
    value = numbers[name]
    for smaller in dict.fromkeys((value - 1, value - value // 4, value // 2)):
        axes = changed_axes(dense, shapes.of({**numbers, name: smaller}))
        if axes:
            return frozenset(axes)
    return frozenset()


def layer_lists(model: nn.Module, shapes: ConfiguredShapes, dense: Shapes) -> list[LayerList]:
    """Return the lists of layers whose length is a number of the configuration, and of no other list.

    Args:
        model: the dense model.
        shapes: builds models.
        dense: its shapes.
    """
    lengths = {path: len(module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    lists = []
    for name, value in config_numbers(shapes.config).items():
        paths = [path for path, length in lengths.items() if length == value > 1]
        if not paths:
            continue
        fewer = shapes.of({}, {name: range(value - 1)})
        absent = dense.keys() - fewer.keys()
        for path in paths:
            last_tensors = {tensor for tensor in dense if tensor.startswith(f"{path}.{value - 1}.")}
            other_shapes = {tensor: shape for tensor, shape in dense.items() if tensor not in last_tensors}
            if fewer and last_tensors and absent == last_tensors and fewer == other_shapes:
                lists.append(LayerList(path, name, value))
    return lists
