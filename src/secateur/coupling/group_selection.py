"""Groups selected by names, globs, modules and classes of modules."""

import fnmatch
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from torch import nn

from secateur.coupling.cost import WHOLE
from secateur.errors import NameMatchError
from secateur.graph.operators import module_path
from secateur.options.selections import ModulePath, Selection, Selector, as_selectors, is_in_module, paths_of

if TYPE_CHECKING:
    from secateur.coupling.network import Network


def select_groups(network: "Network", only: Selection | None = None, skip: Selection | None = None) -> set[str]:
    """Return the names of the groups that `only` selects, all by default, and `skip` does not.

    Raises:
        NameMatchError: a name matches no group and no module that makes one, a module does not belong to the model, no
            module is of a class, or no group is left of those that modules make.
    """
    excluded_names = set[str]() if skip is None else _selected_names(network, skip)
    if only is None:
        return set(network.by_name) - excluded_names
    included_names = _selected_names(network, only)
    if as_selectors(only) and not included_names:
        raise NameMatchError(f"the layers in only= make no units that can be removed\n{network}")
    return included_names - excluded_names


def _selected_names(network: "Network", selection: Selection) -> set[str]:
    return set[str]().union(*(groups_of(network, selector) for selector in as_selectors(selection)))


def groups_of(network: "Network", selector: Selector) -> set[str]:
    """Return the names of the groups that one selector names.

    A text is the name of a group, a glob of such names, or the path of a module. A module selects the groups of the
    units that it makes, or that pass through it where it makes none, as batch norms do; a class all modules of it.

    Raises:
        NameMatchError: nothing is named so; the message offers the nearest.
    """
    names = list(network.by_name)
    if isinstance(selector, str) and not isinstance(selector, ModulePath):
        matches = set(names) & {selector} or set(fnmatch.filter(names, selector))
        matches = matches or groups_within(network, [selector])
        if not matches:
            raise NameMatchError(f"no group is named {selector!r}; {_advice_on_name(network, selector)}")
        return matches
    return groups_within(network, paths_of(selector, network.modules, network.title))


def groups_by_module(network: "Network") -> dict[str, set[str]]:
    """Return for each module with parameters the groups of units that it makes or passes on, without those it reads."""
    groups: dict[str, set[str]] = {}
    for group in network.groups:
        readers = {module_path(consumer.node) for consumer in network.consumers_of(group)}
        for member in group.members:
            path = member.tensor.rpartition(".")[0]
            if member.is_producer or (member.axis != WHOLE and path not in readers):
                groups.setdefault(path, set()).add(group.name)
    return groups


def groups_within(network: "Network", paths: Sequence[str]) -> set[str]:
    """Return the names of the groups of units that modules of these paths, or modules inside, make or pass on."""
    return set[str]().union(
        *(
            groups
            for module, groups in network.groups_by_module.items()
            if any(is_in_module(module, path) for path in paths)
        )
    )


def _advice_on_name(network: "Network", name: str) -> str:
    """Return what to do about a name that matches no group."""
    reasons = {frozen.name: frozen.reason.splitlines()[0] for frozen in network.frozen}
    if name in reasons:
        return f"its units can't be removed: it {reasons[name]}"
    if _is_module(name, network.modules):
        return "the module of that name makes no units that can be removed"
    known_names = [*network.by_name, *(path for path in network.groups_by_module if path not in network.by_name)]
    close_names = get_close_matches(name, known_names, 3, 0.3) or known_names[:5]
    return f"the nearest are {', '.join(close_names) or 'none'}"


def _is_module(name: str, modules: Mapping[str, nn.Module]) -> bool:
    return bool(name) and name in modules
