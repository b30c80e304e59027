"""Configurations of the transformers library with other numbers in single layers, `per_layer_config`."""

import copy
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from secateur.surgery.config_numbers import ShapeNumber, derived_numbers, shape_numbers
from secateur.surgery.configured_models import ConfiguredShapes, Shapes

FIELD = "per_layer_config"
LAYER = re.compile(r"\.(\d+)\.")
MOST_CHOICES = 64
LayerNumbers = Mapping[int, int]


def per_layer_configs(model: nn.Module, config: Any, cut_shapes: Shapes) -> Iterator[Any]:
    """Yield copies of a configuration that say other numbers in single layers, those that say fewest numbers first.

    The axes that get shorter where one number of the configuration is smaller show what the number counts. Classes of
    the library that read one number for all layers refuse the copies.

    Args:
        model: the cut model.
        config: the configuration of the dense model.
        cut_shapes: the shapes of the cut model's tensors.
    """
    if not hasattr(type(config), FIELD):
        return
    shapes = ConfiguredShapes(model, config)
    dense = shapes.of({})
    if dense.keys() != cut_shapes.keys():
        return
    derived_values = derived_numbers(shapes, dense)
    by_layer = {
        number: _layer_numbers(number, dense, cut_shapes) for number in shape_numbers(shapes, dense, derived_values)
    }
    candidates = [(number, values) for number, values in by_layer.items() if values]
    for numbers in itertools.islice(_subsets_of_numbers(candidates), MOST_CHOICES):
        overrides: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for number, values in numbers:
            for layer, value in values.items():
                overrides[layer][number.name] = value
        candidate = copy.deepcopy(config)
        setattr(candidate, FIELD, dict(overrides))
        yield candidate


def _subsets_of_numbers(
    candidates: Sequence[tuple[ShapeNumber, LayerNumbers]],
) -> Iterator[tuple[tuple[ShapeNumber, LayerNumbers], ...]]:
    """Yield all choices of some numbers, the fewest first."""
    for count in range(1, len(candidates) + 1):
        yield from itertools.combinations(candidates, count)


def _layer_numbers(number: ShapeNumber, dense: Shapes, cut_shapes: Shapes) -> LayerNumbers:
    """Return the value of a number in each layer where it is smaller; empty where it is not the same for all axes.

    Args:
        number: the number, with the axes that depend on it.
        dense: the shapes of the dense model.
        cut_shapes: the shapes of the cut model.
    """
    values: defaultdict[int, set[float]] = defaultdict(set)
    for name, axis in number.axes:
        layer = LAYER.search(name)
        if layer is None or len(cut_shapes[name]) != len(dense[name]):
            return {}
        values[int(layer[1])].add(number.value * cut_shapes[name][axis] / dense[name][axis])
    if any(len(in_layer) > 1 or not min(in_layer).is_integer() for in_layer in values.values()):
        return {}
    smaller = {layer: int(min(in_layer)) for layer, in_layer in values.items()}
    return {layer: value for layer, value in smaller.items() if value != number.value}
