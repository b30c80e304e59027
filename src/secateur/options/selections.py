"""Selections of layers and groups: by names, globs, modules and classes of modules."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from secateur.errors import NameMatchError
from secateur.options import kind_text
from secateur.options.globs import match_globs

Selector = str | nn.Module | type[nn.Module]
Selection = Selector | Sequence[Selector]


class ModulePath(str):
    """The path of a module that was given as an object; it selects what lies within the module."""

    __slots__ = ()


def as_selectors(selection: Selection) -> list[Selector]:
    """Return the selectors of a selection, which may be a single one."""
    return [selection] if isinstance(selection, str | type | nn.Module) else list(selection)


def is_selection(value: object) -> bool:
    """Return whether a value is a name, a module, a class of modules, or several of these."""
    if _is_selector(value):
        return True
    is_several = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping | type)
    return is_several and all(map(_is_selector, value))  # type: ignore[call-overload]


def _is_selector(value: object) -> bool:
    return isinstance(value, str | nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module))


def with_module_paths(selection: Selection, modules: Mapping[str, nn.Module], title: str) -> list[Selector]:
    """Return a selection with the path of each module in place of the module, for use with copies of the model.

    Args:
        selection: the selection.
        modules: the modules of the model, by path.
        title: the name of the model's class.

    Raises:
        NameMatchError: a module does not belong to the model.
    """
    paths = {id(module): path for path, module in reversed(list(modules.items()))}
    selectors: list[Selector] = []
    for selector in as_selectors(selection):
        if not isinstance(selector, nn.Module):
            selectors.append(selector)
        elif id(selector) in paths:
            selectors.append(ModulePath(paths[id(selector)]))
        else:
            raise NameMatchError(
                f"{kind_text(selector)} is selected that is no module of this {title}; give a module of the "
                "model itself, not of a copy, or its name"
            )
    return selectors


def paths_of(selector: Selector, modules: Mapping[str, nn.Module], title: str) -> list[str]:
    """Return the paths of the modules that a module or a class of modules selects.

    Args:
        selector: a module, its path, or a class.
        modules: the modules of the model, by path.
        title: the name of the model's class.

    Raises:
        NameMatchError: the module does not belong to the model, or no module is of the class.
    """
    if isinstance(selector, type):
        paths = [path for path, module in modules.items() if isinstance(module, selector)]
        if not paths:
            raise NameMatchError(f"no module of this {title} is a {selector.__name__}")
        return paths
    return [str(path) for path in with_module_paths(selector, modules, title)]


def is_in_module(name: str, path: str) -> bool:
    """Return whether a module or a tensor is a module of this path, or lies within it.

    Examples:
        >>> is_in_module("layer1.0.conv1", "layer1"), is_in_module("layer10.conv1", "layer1"), is_in_module("fc", "")
        (True, False, True)
    """
    return not path or name == path or name.startswith(f"{path}.")


def match_layers(
    selection: Selection, names: Iterable[str], noun: str, modules: Mapping[str, nn.Module], title: str
) -> list[str]:
    """Return the layers that are selected, in their own order.

    Args:
        selection: names, globs, modules or classes of modules.
        names: the names of all layers: the paths of modules, or of their tensors.
        noun: a noun for the error message, such as "layer".
        modules: the modules of the model, by path.
        title: the name of the model's class.

    Raises:
        NameMatchError: nothing matches a name, a module does not belong to the model, or no module is of a class.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
        >>> match_layers(nn.Linear, ["0", "2"], "layer", dict(model.named_modules()), "Sequential")
        ['2']
    """
    known_names, selected_names = list(names), set[str]()
    for selector in as_selectors(selection):
        if isinstance(selector, str) and not isinstance(selector, ModulePath):
            names_inside = [name for name in known_names if is_in_module(name, selector)] if selector in modules else []
            selected_names |= set(names_inside or match_globs(selector, known_names, noun))
        else:
            paths = paths_of(selector, modules, title)
            selected_names |= {name for name in known_names if any(is_in_module(name, path) for path in paths)}
    return [name for name in known_names if name in selected_names]
