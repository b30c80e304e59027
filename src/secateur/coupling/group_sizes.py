"""The numbers of units that groups may have, and the numbers that a user names for some of them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.group_selection import groups_of, groups_within
from secateur.errors import BudgetError, OptionError
from secateur.options import is_real, is_whole, kind_text, short_text
from secateur.options.selections import Selector, is_selection
from secateur.utils.plurals import number_of

if TYPE_CHECKING:
    from secateur.coupling.group import Group
    from secateur.coupling.network import Network

PERCENT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*")
Size = int | float | str | Sequence[int] | Tensor
Sizes = Mapping[Any, Size]
"""What groups keep, by name, glob, module or class: a number of units, a fraction of them, "50%", or their indices."""


def sizes_in_steps(group: "Group", step: int, floor: float) -> np.ndarray:
    """Return the sizes that a group may have, ascending: multiples of a step from the fewest units on, and its own.

    Args:
        group: the group.
        step: the number that sizes are multiples of.
        floor: the fewest units; below 1 a fraction of the group.
    """
    step = math.lcm(step, group.multiple)
    floor_units = max(group.fewest, math.ceil(group.size * floor) if floor < 1 else int(floor))
    fewest = min(group.size, math.ceil(floor_units / step) * step)
    return np.unique([fewest, *range(fewest + step, group.size, step), group.size])


def requested_sizes(network: "Network", sizes: Sizes, step: int = 1, floor: float = 1) -> dict[str, int | Tensor]:
    """Return for each group that is named its number of units, or the indices of its units, checked.

    Of several globs, classes and modules of several groups the last counts; what names one group counts before them.
    Numbers are not of whole blocks that are units beside others, unless their group alone is named so.

    Args:
        network: the network.
        sizes: whole numbers of units, fractions above 0 and at most 1.0, or indices, by name, glob, module or class.
        step: the number that sizes are multiples of.
        floor: the fewest units of a group; below 1 a fraction of the group.

    Raises:
        NameMatchError: nothing is named so.
        BudgetError: a group can't have that size, or two names of one group ask for different sizes.
        OptionError: sizes is no mapping, a size is none, or the indices are not those of the group's units.
    """
    if not isinstance(sizes, Mapping):
        raise OptionError(
            f"sizes is {kind_text(sizes)}; give a dict from names of groups to sizes, {{'layer1.*': 0.5}}"
        )
    for selector in sizes:
        if not is_selection(selector):
            raise OptionError(f"sizes has the key {selector!r}; give the name of a group as text, {str(selector)!r}")
    requests: dict[str, int | Tensor] = {}
    selector_of: dict[str, Selector] = {}
    groups = {selector: sorted(_groups_to_size(network, selector, sizes[selector])) for selector in sizes}
    for selector in sorted(sizes, key=lambda selector: _names_one(selector, groups[selector])):
        for name in groups[selector]:
            request = _checked_size(network[name], sizes[selector], step, floor)
            if name in selector_of and not _is_same_request(requests[name], request):
                raise BudgetError(
                    f"{_selector_text(selector_of[name])} and {_selector_text(selector)} both lie in the group {name}, "
                    "whose layers are coupled and keep the same units: give one size for it"
                )
            requests[name] = request
            if _names_one(selector, groups[selector]):
                selector_of[name] = selector
    return {group.name: requests[group.name] for group in network.groups if group.name in requests}


def _groups_to_size(network: "Network", selector: Selector, size: object) -> set[str]:
    """Return the names of the groups that a selector gives a size.

    Whole blocks beside other units have no scores to choose a number of them by, so that a number is not of these where
    the selector names other groups as well, or a module of the same name.
    """
    names = groups_of(network, selector)
    is_mixed, is_number = len(network.groups) > 1, isinstance(size, str) or is_real(size)
    blocks = {group.name for group in network.groups if group.block_paths} if is_mixed and is_number else set()
    if not names & blocks:
        return names
    return names - blocks or groups_within(network, [str(selector)]) or names


def kept_units(group: "Group", request: int | Tensor, ranking: Tensor | None) -> Tensor:
    """Return the indices of the units that a group keeps, ascending.

    Args:
        group: the group.
        request: their number, or the indices.
        ranking: the group's units in ascending order of their scores, None where they have no scores.

    Raises:
        BudgetError: a number of units is asked for, and there are no scores to choose them by.
    """
    if isinstance(request, Tensor):
        return request
    if request == group.size:
        return torch.arange(group.size)
    if ranking is None:
        raise BudgetError(
            f"{group.name} has no scores to choose {request} of its {number_of(group.size, 'unit')} by; give "
            "the indices of the units, such as scores[name].values.topk(count).indices"
        )
    return ranking[group.size - request :].sort().values


def _names_one(selector: Selector, groups: Sequence[str]) -> bool:
    """Return whether a selector names one group, and is no glob and no class that happens to match one."""
    is_pattern = isinstance(selector, type) or (isinstance(selector, str) and bool(set(selector) & set("*?[")))
    return len(groups) == 1 and not is_pattern


def _selector_text(selector: Selector) -> str:
    return selector if isinstance(selector, str) else f"this {type(selector).__name__}"


def _is_same_request(request: int | Tensor, other: int | Tensor) -> bool:
    if isinstance(request, Tensor) and isinstance(other, Tensor):
        return torch.equal(request, other)
    return not isinstance(request, Tensor) and not isinstance(other, Tensor) and request == other


def _checked_size(group: "Group", size: Size, step: int, floor: float) -> int | Tensor:
    """Return a size as a number of units or as ascending indices."""
    possible = sizes_in_steps(group, step, floor)
    if isinstance(size, Tensor | np.ndarray | Sequence) and not isinstance(size, str) and np.ndim(size) == 1:
        indices = _checked_indices(group, size)
        _check_possible(group, len(indices), possible)
        return indices
    if is_whole(size):
        _check_possible(group, int(size), possible)  # type: ignore[arg-type]
        return int(size)  # type: ignore[arg-type]
    fraction = _fraction_of(size)
    if fraction is None or not 0 < fraction <= 1:
        raise OptionError(
            f"{short_text(size)} is no size for {group.name}; give a whole number of its {group.size} units, a "
            "fraction above 0 and at most 1.0 or '50%', or the indices of units"
        )
    return int(possible[np.abs(possible - fraction * group.size).argmin()])


def _fraction_of(size: object) -> float | None:
    """Return a number, or a percentage such as "50%" as a fraction; None for anything else."""
    percent = PERCENT.fullmatch(size) if isinstance(size, str) else None
    return float(percent[1]) / 100 if percent else float(size) if is_real(size) else None  # type: ignore[arg-type]


def _checked_indices(group: "Group", values: Any) -> Tensor:
    indices = torch.as_tensor(values)
    if indices.dtype == torch.bool and len(indices) == group.size:
        indices = indices.nonzero()[:, 0]
    is_integral = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    ascending = indices.detach().cpu().long().unique() if is_integral else indices
    is_inside = is_integral and bool(((ascending >= 0) & (ascending < group.size)).all())
    if not is_inside or len(ascending) < len(indices):
        raise OptionError(
            f"{short_text(values)} are no units of {group.name}; give different indices from 0 to {group.size - 1}"
        )
    return ascending


def _check_possible(group: "Group", count: int, possible: np.ndarray) -> None:
    """Check that a group can have a number of units.

    Raises:
        BudgetError: it is above its size, below its floor, or no multiple of its step; the nearest are named.
    """
    if count not in possible:
        nearest = possible[np.argsort(np.abs(possible - count), kind="stable")[:2]]
        reason = f"it has {group.size}" if count > group.size else f"sizes go from {possible[0]} in steps"
        reason = f"it keeps {possible[0]} at least" if count < possible[0] else reason
        raise BudgetError(
            f"{group.name} can't keep {count} of its {group.size} units: {reason}; the nearest sizes are "
            f"{', '.join(map(str, sorted(nearest.tolist())))}"
        )
