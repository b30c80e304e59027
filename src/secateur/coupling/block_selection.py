"""The blocks of a residual network that may be removed, by the layers that `only` and `skip` name."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from secateur.coupling.group import Group
from secateur.coupling.group_selection import groups_of
from secateur.coupling.network import Network
from secateur.coupling.regroup import renumber_units
from secateur.coupling.residual_blocks import groups_inside, is_inside, without_blocks
from secateur.errors import NameMatchError
from secateur.options.selections import ModulePath, Selection, Selector, as_selectors, is_in_module, paths_of


@dataclass(frozen=True, eq=False)
class SelectedNetwork:
    """A network, and the groups of units in it that may lose units.

    Args:
        network: the network; its blocks are those that may be removed.
        only: the groups that may lose units, as `score` takes them; None for all.
        skip: the groups that stay whole, as `score` takes them.
    """

    network: Network
    only: Selection | None = None
    skip: Selection | None = None

    @property
    def groups(self) -> list[Group]:
        """The groups that may lose units."""
        return self.network.select(self.only, self.skip)


def with_selected_blocks(network: Network, only: Selection | None = None, skip: Selection | None = None) -> Network:
    """Return the network with those blocks as units that a selection of layers allows to remove.

    Removing a block removes all its layers. A block can be removed if `only` names it or a module that it lies in, and
    if `skip` names neither these, nor anything inside the block: a module, or a group of units that lies in it alone.

    Args:
        network: the network, with blocks as its only units or beside others; one without is returned as it is.
        only: as `score` takes it.
        skip: as `score` takes it.

    Raises:
        NameMatchError: blocks are the only units, and a name matches none of them, or none can be removed.
    """
    group = next((group for group in network.groups if group.block_paths), None)
    if group is None or (only is None and skip is None):
        return network
    named_paths = set(group.block_paths) if only is None else _named_blocks(network, group, only)
    skipped_paths = (
        set[str]() if skip is None else _named_blocks(network, group, skip) | _touched_blocks(network, group, skip)
    )
    allowed_indices = [index for index, path in enumerate(group.block_paths) if path in named_paths - skipped_paths]
    if not allowed_indices and is_of_blocks_alone(network):
        raise NameMatchError(f"only={only!r} and skip={skip!r} leave none of the blocks {', '.join(group.block_paths)}")
    return network if len(allowed_indices) == group.size else _with_blocks_at(network, group, allowed_indices)


def select_units(network: Network, only: Selection | None, skip: Selection | None) -> SelectedNetwork:
    """Select blocks among the units of a network, and groups among its other units.

    Args:
        network: the network.
        only: as `score` takes it.
        skip: as `score` takes it.
    """
    selected_network = with_selected_blocks(network, only, skip)
    if is_of_blocks_alone(network):
        return SelectedNetwork(selected_network)
    return SelectedNetwork(selected_network, only, skip)


def is_of_blocks_alone(network: Network) -> bool:
    """Return whether blocks are the only units of a network."""
    return len(network.groups) == 1 and bool(network.groups[0].block_paths)


def _named_blocks(network: Network, group: Group, selection: Selection) -> set[str]:
    """Return the blocks that a selection names, or that lie in a module that it names."""
    named_blocks = set[str]()
    for selector in as_selectors(selection):
        paths = _module_paths(network, selector)
        blocks = {path for path in group.block_paths if any(is_in_module(path, other) for other in paths)}
        if isinstance(selector, str) and not isinstance(selector, ModulePath):
            blocks |= set(group.block_paths) if selector == group.name else set()
            if is_of_blocks_alone(network) and not blocks and not paths:
                raise NameMatchError(f"no block is named {selector!r}; the blocks are {', '.join(group.block_paths)}")
        named_blocks |= blocks
    return named_blocks


def _touched_blocks(network: Network, group: Group, selection: Selection) -> set[str]:
    """Return the blocks with a module inside that a selection names, or with a group of units that it names."""
    touched_blocks = set[str]()
    for selector in as_selectors(selection):
        paths = _module_paths(network, selector)
        touched_blocks |= {block for block in group.block_paths if any(is_inside(path, [block]) for path in paths)}
        if not paths and not is_of_blocks_alone(network):
            names = _group_names(network, selector)
            touched_blocks |= {
                block
                for block in group.block_paths
                if any(inner_group.name in names for inner_group in groups_inside(network, [block]))
            }
    return touched_blocks


def _module_paths(network: Network, selector: Selector) -> list[str]:
    """Return the paths of the modules that a selector names; none for the name of a group that is no module."""
    if isinstance(selector, str) and not isinstance(selector, ModulePath):
        return [selector] if selector in network.modules else fnmatch.filter(network.modules, selector)
    return paths_of(selector, network.modules, network.title)


def _group_names(network: Network, selector: Selector) -> set[str]:
    """Return the names of the groups that a selector names; none where it names blocks alone."""
    try:
        return groups_of(network, selector)
    except NameMatchError:  # reported where groups are selected
        return set()


def _with_blocks_at(network: Network, group: Group, allowed_indices: Sequence[int]) -> Network:
    """Return the network with some of its blocks as units.

    Args:
        network: the network.
        group: its blocks, the last of its groups.
        allowed_indices: the indices of those that stay units.
    """
    if not allowed_indices:
        return without_blocks(network)
    number = torch.arange(network.units + 1)
    number[[*range(group.offset, group.offset + group.size), -1]] = -1
    number[group.offset + torch.tensor(allowed_indices)] = group.offset + torch.arange(len(allowed_indices))
    members = tuple(member for member in group.members if bool((number[member.units] >= 0).all()))
    paths = tuple(group.block_paths[index] for index in allowed_indices)
    fewer = replace(group, size=len(allowed_indices), members=members, block_paths=paths)
    return renumber_units(network, [*(other for other in network.groups if other is not group), fewer], number)
