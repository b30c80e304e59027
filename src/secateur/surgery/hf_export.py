"""Small models of the transformers library in its own format, if a configuration can describe their shape."""

import copy
import itertools
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from secateur.coupling.plan import Plan
from secateur.errors import SecateurError, StorageError
from secateur.surgery.adapters import merging_advice
from secateur.surgery.configured_models import (
    build_configured,
    configured_shapes,
    difference_from_cut,
    shapes_of_state,
)
from secateur.surgery.per_layer_config import per_layer_configs

MOST_CONFIGS = 256


def save_pretrained(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write a small model so that `from_pretrained` loads it.

    Numbers in the configuration that equal an old size are tried with the new one, then numbers of single layers in
    `per_layer_config`, until the library builds a model of the same shapes, and that model gives the same output.

    Raises:
        StorageError: it is not a model of that library, or no configuration says its shape.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(model, "save_pretrained") or not hasattr(config, "to_dict"):
        raise StorageError(
            f"{type(model).__name__} is not a model of the transformers library; `save` writes a recipe, which `load` "
            "puts onto a fresh model"
        )
    expected_shapes = shapes_of_state(model)
    nearest, refusal = sorted(expected_shapes), ""
    candidates = itertools.islice(_candidates(config, plan), MOST_CONFIGS)
    for candidate in itertools.chain(candidates, per_layer_configs(model, config, expected_shapes)):
        shapes = configured_shapes(model, copy.deepcopy(candidate))
        wrong = sorted(
            name for name in expected_shapes.keys() | shapes.keys() if expected_shapes.get(name) != shapes.get(name)
        )
        if not wrong:
            refusal = _write_if_equal(model, candidate, plan, folder)
            if not refusal:
                return
        nearest = min(nearest, wrong, key=len)
    cause = refusal or f"{nearest[0]} differs at the nearest, and {len(nearest) - 1} more"
    advice = merging_advice(model) or "prune with layout='config', which cuts every layer alike, or "
    raise StorageError(
        f"no configuration of {type(config).__name__} says this shape: {cause}; {advice}use `save`, whose recipe "
        "`load` puts onto a fresh model"
    )


def _candidates(config: Any, plan: Plan) -> Iterator[Any]:
    """Yield the model's configuration, then those in which new sizes replace old ones, most numbers at once first."""
    yield config
    new_sizes = _new_sizes(plan)
    numbers = [(name, value) for name, value in vars(config).items() if type(value) is int]
    choices = [(name, sorted(new_sizes.get(value, set()) - {value})) for name, value in numbers]
    for values in changes_of_numbers([(name, sizes) for name, sizes in choices if sizes]):
        config_copy = copy.deepcopy(config)
        for name, value in values.items():
            setattr(config_copy, name, value)
        yield config_copy


def changes_of_numbers(choices: Sequence[tuple[str, Sequence[int]]]) -> Iterator[dict[str, int]]:
    """Yield all choices of new values for some of several numbers, those of most numbers first.

    Examples:
        >>> list(changes_of_numbers([("width", [4, 6]), ("heads", [2])]))
        [{'width': 4, 'heads': 2}, {'width': 6, 'heads': 2}, {'width': 4}, {'width': 6}, {'heads': 2}]
    """
    for count in range(len(choices), 0, -1):
        for choice in itertools.combinations(choices, count):
            names = [name for name, _ in choice]
            for values in itertools.product(*(sizes for _, sizes in choice)):
                yield dict(zip(names, values, strict=True))


def _new_sizes(plan: Plan) -> Mapping[int, set[int]]:
    """Map each old size, of groups and of the axes that they own completely, to its new sizes."""
    mask = plan.network.mask(plan.kept)
    new_sizes: defaultdict[int, set[int]] = defaultdict(set)
    for group in plan.network.groups:
        new_sizes[group.size].add(int(mask[group.span].sum()))
        for member in group.members:
            new_sizes[len(member.units)].add(int(mask[member.units].sum()))
    return new_sizes


def _write_if_equal(model: Any, config: Any, plan: Plan, folder: Path) -> str:
    """Write a model of the configuration if it gives the same output; return the obstacle, or ""."""
    try:
        fresh = build_configured(model, config)
        difference_from_cut(model, fresh, plan.network)
        with tempfile.TemporaryDirectory() as staging:
            fresh.save_pretrained(staging)
            shutil.copytree(staging, folder, dirs_exist_ok=True)
    except (SecateurError, RuntimeError, ValueError, TypeError) as failure:
        return " ".join(str(failure).split())
    return ""
