"""Validation of a saved cut: every name, number and shape, before it is applied."""

from collections.abc import Mapping

from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.files.records import check_stored
from secateur.graph.parametrizations import needs_folding
from secateur.surgery.attribute_checks import check_attributes
from secateur.surgery.lineage import CutStep
from secateur.surgery.literal_checks import MOST_ENTRIES, are_equal_literals, check_literals
from secateur.surgery.model_config import config_numbers, open_numbers
from secateur.surgery.program_checks import check_program
from secateur.surgery.recipe import Recipe

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
            if not are_equal_literals(now, value):
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
    check_attributes(modules, recipe, tensors)
    for name, length in recipe.biases.items():
        _check_bias(name, length, modules, recipe)
    for path in recipe.dropouts:
        check_stored(path in modules, f"there is no dropout {path!r}")
    check_literals(model, recipe.literals)
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
    has_computed_weights = needs_folding(model)
    check_stored(
        recipe.program or recipe.folded == has_computed_weights,
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
        is_valid = len(positions) > 0 and _ascends(positions) and int(positions[-1]) < tensors[name].shape[axis]
        check_stored(is_valid, f"positions along axis {axis} of {name} are out of range or in no order")


def _ascends(positions: Tensor) -> bool:
    return bool((positions >= 0).all()) and bool((positions[1:] > positions[:-1]).all())


def _check_bias(name: str, length: int, modules: Mapping[str, nn.Module], recipe: Recipe) -> None:
    """Check a new bias.

    Raises:
        StorageError: the layer has a bias already, has no place for one, or for one of another length.
    """
    path, _, attribute = name.rpartition(".")
    module = modules.get(path)
    has_place = module is not None and attribute in module._parameters and module._parameters[attribute] is None
    check_stored(has_place and attribute == "bias", f"{name} can't become a bias")
    counts = [key for key in OUTPUTS if hasattr(module, key)]
    outputs = recipe.attributes.get(path, {}).get(counts[0], getattr(module, counts[0])) if counts else None
    check_stored(length == outputs, f"{name} would get {length} entries, where the layer gives {outputs}")


def _axes_text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(tuple(shape))
