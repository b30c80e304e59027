"""Checks of the attributes of modules that a recipe changes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from secateur.files.records import check_stored
from secateur.surgery.literal_checks import are_equal_literals
from secateur.surgery.recipe import Recipe
from secateur.surgery.recipe_attributes import resized_attributes
from secateur.surgery.replacements import REPLACEMENTS

DROPOUTS = nn.modules.dropout._DropoutNd
FLAGS = frozenset({"_qkv_same_embed_dim"})


def check_attributes(modules: Mapping[str, nn.Module], recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
    """Check the attributes of a recipe.

    Raises:
        StorageError: attributes are changed that a cut leaves alone, others are not, or to values that it can't give.
    """
    check_stored(
        _names(recipe.attributes) == _names(recipe.was), "attributes and their old values are not the same ones"
    )
    check_stored(recipe.attributes.keys() <= modules.keys(), "attributes are changed of a module that is not there")
    by_tensors = resized_attributes(modules, recipe.slices)
    counts = _changed_lengths(recipe, tensors)
    for path, changed_attributes in recipe.attributes.items():
        for name, value in changed_attributes.items():
            old = getattr(modules[path], name, None)
            by_tensor = name in by_tensors.get(path, {}) and are_equal_literals(by_tensors[path][name], value)
            fits = not name.startswith("__") and (by_tensor or _is_cut(modules[path], name, old, value, counts))
            check_stored(fits, f"no cut makes {path}.{name} {value!r}, where it is {old!r}")
    for path, changed_attributes in by_tensors.items():
        for name, value in changed_attributes.items():
            recorded_value = recipe.attributes.get(path, {}).get(name, getattr(modules[path], name, None))
            check_stored(
                are_equal_literals(recorded_value, value),
                f"{path}.{name} would be {recorded_value!r}, where its tensors make it {value!r}",
            )
    replaced_paths = tuple(path for path in recipe.attributes if type(modules[path]) in REPLACEMENTS)
    check_stored(recipe.dropins == replaced_paths, f"no cut replaces {', '.join(recipe.dropins) or 'no module'} here")


def _names(attributes: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(path, name) for path, values in attributes.items() for name in values}


def _changed_lengths(recipe: Recipe, tensors: Mapping[str, Tensor]) -> set[tuple[int | None, int]]:
    """Return the old and the new length of each cut axis, and the number of kept units of each group."""
    axes = {
        (tensors[name].shape[axis], len(positions))
        for name, slices in recipe.slices.items()
        for axis, positions in slices.items()
    }
    return axes | {(None, len(indices)) for indices in recipe.kept.values()}


def _is_cut(module: nn.Module, name: str, old: Any, new: Any, counts: set[tuple[int | None, int]]) -> bool:
    """Return whether a cut can give an attribute this value: a new count, some of several counts, a dropout's rate."""
    if name in FLAGS:
        return isinstance(module, tuple(REPLACEMENTS)) and new is False
    if name == "p" and isinstance(module, DROPOUTS):
        return type(old) in (int, float) and type(new) is float and 0 <= new <= old
    if isinstance(old, tuple | list) and isinstance(new, tuple | list):
        return len(old) == len(new) and all(a == b or _is_count(a, b, counts) for a, b in zip(old, new, strict=True))
    return _is_count(old, new, counts)


def _is_count(old: Any, new: Any, counts: set[tuple[int | None, int]]) -> bool:
    is_fewer = type(old) is int and type(new) is int and new <= old
    return is_fewer and ((old, new) in counts or (None, new) in counts)
