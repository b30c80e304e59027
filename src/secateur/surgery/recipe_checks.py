"""Validation of a saved cut: every name, number and shape, before it is applied."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateur.errors import StorageError
from secateur.files.records import check_stored
from secateur.graph.module_program import WHOLE
from secateur.graph.parametrizations import needs_folding
from secateur.surgery.lineage import CutStep
from secateur.surgery.model_config import config_numbers, open_numbers
from secateur.surgery.program_json import check_program
from secateur.surgery.recipe import Recipe
from secateur.surgery.recipe_attributes import resized_attributes
from secateur.surgery.replacements import REPLACEMENTS

DROPOUTS = nn.modules.dropout._DropoutNd
FLAGS = frozenset({"_qkv_same_embed_dim"})
MOST_ENTRIES = 2**31
OUTPUTS = ("out_features", "out_channels", "nf")


def check_recipe_fits(model: nn.Module, step: CutStep, title: str) -> None:
    """Check that a saved cut belongs to a model of this class and shape.

    Raises:
        StorageError: the model is not the one that the cut was made of.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    wrong = [name for name in shapes.keys() | step.shapes.keys() if shapes.get(name) != step.shapes.get(name)]
    if wrong:
        name = min(wrong)
        raise StorageError(
            f"it was saved from a {title} whose {name} has shape {_axes_text(step.shapes.get(name))}; this model "
            f"has {_axes_text(shapes.get(name))} there; give a fresh, dense model of the same class and arguments"
        )
    modules = dict(model.named_modules())
    for path, values in step.recipe.was.items():
        for name, value in values.items():
            now = getattr(modules.get(path), name, None)
            if not _are_equal_literals(now, value):
                raise StorageError(
                    f"it was saved from a {title} whose {path}.{name} is {value}; in this model it is {now}; make the "
                    "model with the same arguments"
                )


def check_recipe(model: nn.Module, recipe: Recipe) -> None:
    """Check that a recipe is one that this model could have.

    Raises:
        StorageError: the recipe changes something that no cut of this model changes, or in a way that no cut does.
    """
    modules = dict(model.named_modules())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, axes in recipe.slices.items():
        _check_slices(name, axes, tensors)
    for name, indices in recipe.kept.items():
        check_stored(_ascends(indices), f"the units kept of {name} are in no order")
    for path in recipe.skipped:
        module = modules.get(path)
        leaf = module is None or (type(module).__module__.startswith("torch.nn") and not any(module.children()))
        check_stored(path != "" and not leaf, f"{path!r} is no block that can be left out")
    _check_attributes(modules, recipe, tensors)
    for name, length in recipe.biases.items():
        _check_bias(name, length, modules, recipe)
    for path in recipe.dropouts:
        check_stored(path in modules, f"there is no dropout {path!r}")
    _check_literals(model, recipe.literals)
    _check_config(model, recipe)
    for path, program in recipe.module_programs.items():
        check_stored(path in modules, f"there is no module {path!r} to run a program")
        check_program(modules[path], path, program)


def _check_config(model: nn.Module, recipe: Recipe) -> None:
    """Check the numbers of the configuration, and the lists that get shorter.

    Raises:
        StorageError: the configuration has no such numbers, smaller ones, or they are no lengths of these lists.
    """
    if not (recipe.config or recipe.layer_lists):
        return
    numbers = config_numbers(getattr(model, "config", None))
    open_names = set(open_numbers(getattr(model, "config", None)))
    for name, value in recipe.config.items():
        fits = 0 < value <= numbers[name] if name in numbers else name in open_names and 0 < value < MOST_ENTRIES
        check_stored(fits, f"no cut makes {name} of the configuration {value}, where it is {numbers.get(name)}")
    for path, name in recipe.layer_lists.items():
        layers = dict(model.named_modules()).get(path)
        fits = isinstance(layers, nn.ModuleList) and numbers.get(name) == len(layers)
        check_stored(fits, f"{name} of the configuration is not the length of a list {path!r}")


def check_kind(model: nn.Module, recipe: Recipe) -> None:
    """Check the kind of a recipe.

    Raises:
        StorageError: the recipe folds weights where none is computed from others, or does not where one is.
    """
    computed = needs_folding(model)
    check_stored(
        recipe.program or recipe.folded == computed,
        "it was saved from a model whose weights are computed from others"
        if recipe.folded
        else "it was saved from a model whose weights are plain; those of this model are computed from others",
    )


def _check_slices(name: str, axes: Mapping[int, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Check the slices of a recipe.

    Raises:
        StorageError: the tensor, an axis or a position is not there.
    """
    check_stored(name in tensors, f"there is no tensor {name!r}")
    for axis, positions in axes.items():
        check_stored(axis < tensors[name].dim(), f"{name} has no axis {axis}")
        within = len(positions) > 0 and _ascends(positions) and int(positions[-1]) < tensors[name].shape[axis]
        check_stored(within, f"positions along axis {axis} of {name} are out of range or in no order")


def _ascends(positions: Tensor) -> bool:
    return bool((positions >= 0).all()) and bool((positions[1:] > positions[:-1]).all())


def _check_attributes(modules: Mapping[str, nn.Module], recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
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
    for path, changed in recipe.attributes.items():
        for name, value in changed.items():
            old = getattr(modules[path], name, None)
            by_tensor = name in by_tensors.get(path, {}) and _are_equal_literals(by_tensors[path][name], value)
            fits = not name.startswith("__") and (by_tensor or _is_cut(modules[path], name, old, value, counts))
            check_stored(fits, f"no cut makes {path}.{name} {value!r}, where it is {old!r}")
    for path, changed in by_tensors.items():
        for name, value in changed.items():
            recorded = recipe.attributes.get(path, {}).get(name, getattr(modules[path], name, None))
            check_stored(
                _are_equal_literals(recorded, value),
                f"{path}.{name} would be {recorded!r}, where its tensors make it {value!r}",
            )
    expected = tuple(path for path in recipe.attributes if type(modules[path]) in REPLACEMENTS)
    check_stored(recipe.dropins == expected, f"no cut replaces {', '.join(recipe.dropins) or 'no module'} here")


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
    """True if a cut can give an attribute this value: a new count, some of several counts, a dropout's rate."""
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


def _check_bias(name: str, length: int, modules: Mapping[str, nn.Module], recipe: Recipe) -> None:
    """Check a new bias.

    Raises:
        StorageError: the layer has a bias already, has no place for one, or for one of another length.
    """
    path, _, attribute = name.rpartition(".")
    module = modules.get(path)
    free = module is not None and attribute in module._parameters and module._parameters[attribute] is None
    check_stored(free and attribute == "bias", f"{name} can't become a bias")
    counts = [key for key in OUTPUTS if hasattr(module, key)]
    outputs = recipe.attributes.get(path, {}).get(counts[0], getattr(module, counts[0])) if counts else None
    check_stored(length == outputs, f"{name} would get {length} entries, where the layer gives {outputs}")


def _check_literals(model: nn.Module, literals: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Check the numbers of a program.

    Raises:
        StorageError: the program has no such numbers, or a cut can't change them so.
    """
    check_stored(
        not literals or isinstance(model, fx.GraphModule), "numbers of a program are changed, but this is a model"
    )
    nodes = {node.name: node for node in model.graph.nodes} if isinstance(model, fx.GraphModule) else {}
    for operator, arguments in literals.items():
        check_stored(operator in nodes, f"the program has no operator {operator}")
        for name, positions in arguments.items():
            written = _argument_of(nodes[operator], name)
            for position, value in positions.items():
                single = position == WHOLE and len(positions) == 1
                index = int(position) if position.isdecimal() and len(position) < 4 else -1
                listed = isinstance(written, list | tuple) and 0 <= index < len(written)
                old = written if single else written[index] if listed else None
                check_stored(
                    can_become(old, value),
                    f"no cut makes {name} of {operator} {value}, where it is {old}",
                )


def can_become(old: Any, new: int) -> bool:
    """True if a cut can replace one number of a program by the other: fewer entries, or -1 for inferred lengths.

    An amount that crops is negative, so that fewer are nearer to zero.
    """
    if old == -1 or new == -1:
        return isinstance(old, torch.fx.Node) or (type(old) is int and -1 <= new < MOST_ENTRIES)
    return type(old) is int and min(old, 0) <= new <= max(old, 0)


def _argument_of(node: torch.fx.Node, name: str) -> Any:
    """Return an argument of an operator in the program."""
    if name in node.kwargs:
        return node.kwargs[name]
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    index = names.index(name) if name in names else len(node.args)
    return node.args[index] if index < len(node.args) else None


def _are_equal_literals(one: Any, other: Any) -> bool:
    one, other = (tuple(value) if isinstance(value, list | tuple) else value for value in (one, other))
    return type(one) is type(other) and bool(one == other)


def _axes_text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(tuple(shape))
