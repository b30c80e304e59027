"""Criteria by name. A criterion is a function from evidence to a score for every unit."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from torch import Tensor

from secateur.errors import NameMatchError
from secateur.importance.evidence import Evidence
from secateur.importance.scores import GroupScores

Criterion = Callable[[Evidence], Mapping[str, Tensor | GroupScores]]

_criteria: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a function as a criterion, so that `score(..., by=name)` finds it.

    The function gets an `Evidence` and gives, for every group in `evidence.groups` by its name, one score per unit
    (units,), or one per unit and example (units, examples), whose mean and standard error are then taken. Low goes
    first.

    Example:
        >>> import secateur as sc
        >>> @sc.criterion("first-come")
        ... def first_come(evidence):
        ...     return {group.name: torch.arange(group.size) for group in evidence.groups}
        >>> "first-come" in sc.criteria()
        True
    """

    def register(function: Criterion) -> Criterion:
        _criteria[name] = function
        return function

    return register


def criteria() -> tuple[str, ...]:
    """The names of all registered criteria."""
    return tuple(sorted(_criteria))


def find_criterion(by: str | Criterion) -> tuple[str, Criterion]:
    """A criterion and its name, from either.

    Raises:
        NameMatchError: no criterion has that name; the nearest and all names are listed.
    """
    if not isinstance(by, str):
        return getattr(by, "__name__", type(by).__name__), by
    if by not in _criteria:
        near = get_close_matches(by, criteria(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NameMatchError(f"no criterion is named {by!r}; {hint}known are {', '.join(criteria())}")
    return by, _criteria[by]
