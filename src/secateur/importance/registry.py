"""Criteria by name. A criterion is a function from evidence to a score for every unit."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from secateur.errors import OptionError
from secateur.importance.context import CriterionContext
from secateur.importance.scores import GroupScores
from secateur.options import CRITERION, OPTIONS, check_name, one_of

Criterion = Callable[[CriterionContext], Mapping[str, Tensor | GroupScores]]
Use = Literal["nothing", "loss", "gradients", "unknown"]
SAMPLED = ("aggregate", "coalitions", "stop", "memory", "precision", "resume")  # options of whatever draws coalitions
DEFAULTS: Mapping[str, Any] = {"estimator": "auto"}  # of options whose default is not None


@dataclass(frozen=True)
class Registered:
    """A criterion as it was registered.

    Args:
        function: the criterion.
        options: the options of `score` that it reads; None for any.
        uses: what it takes of the examples' losses: nothing, their values, or their gradients as well; or "unknown".
        estimators: the values that its option `estimator` may have; None where a function or any name will do.
    """

    function: Criterion
    options: Collection[str] | None = None
    uses: Use = "unknown"
    estimators: Collection[str] | None = None


_criteria: dict[str, Registered] = {}


def criterion(
    name: str,
    *,
    options: Collection[str] | None = None,
    uses: Use = "unknown",
    estimators: Collection[str] | None = None,
) -> Callable[[Criterion], Criterion]:
    """Register a function as a criterion, so that `score(..., by=name)` finds it.

    The function gets an `Evidence` and gives, for every group in `evidence.groups` by its name, one score per unit
    (units,), or one per unit and example (units, examples), whose mean and standard error are then taken. Low goes
    first.

    Args:
        name: the criterion's name.
        options: names of the options of `score` that it reads in `evidence.options`, such as "coalitions"; others are
            refused where someone gives them. By default none is refused.
        uses: what it takes of the examples' losses, which are then checked beforehand: "nothing", "loss" for their
            values, or "gradients".
        estimators: the names that its option `estimator` knows; by default any.

    Example:
        >>> import secateur as sc
        >>> @sc.criterion("first-come")
        ... def first_come(evidence):
        ...     return {group.name: torch.arange(group.size) for group in evidence.groups}
        >>> "first-come" in sc.criteria()
        True
    """

    def register(function: Criterion) -> Criterion:
        _criteria[name] = Registered(function, options, uses, estimators)
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
    CRITERION.check("by", by)
    if isinstance(by, str):
        check_name(by, criteria(), "no criterion is named")
        return by, _criteria[by].function
    return getattr(by, "__name__", type(by).__name__), by


def registered(by: str | Criterion) -> Registered:
    """A criterion with what it reads; a function reads anything.

    Raises:
        NameMatchError: no criterion has that name.
    """
    _, function = find_criterion(by)
    return _criteria[by] if isinstance(by, str) else Registered(function)


def check_criterion(by: str | Criterion, options: Mapping[str, Any]) -> None:
    """Check options of `score` against what a criterion reads.

    Raises:
        NameMatchError: no criterion has that name, or an option's value is an unknown name.
        OptionError: an option was given that the criterion does not read, or it has a wrong type.
    """
    found = registered(by)
    given = {name: value for name, value in options.items() if value is not None and value != DEFAULTS.get(name)}
    for name, value in given.items():
        if name in OPTIONS:
            OPTIONS[name].check(name, value)
        if found.options is not None and name not in found.options:
            consumers = [other for other, each in sorted(_criteria.items()) if name in (each.options or ())]
            raise OptionError(f"{name}= does not apply to by={by!r}; leave it out, or rank by {', '.join(consumers)}")
    if given.get("protocol") == "paper":
        for name in ("estimator", "coalitions", "stop"):
            if name in given:
                raise OptionError(f"{name}= does not apply to protocol='paper', which says what is drawn; leave it out")
    if found.estimators is not None and "estimator" in given and not callable(given["estimator"]):
        one_of("auto", *found.estimators).check("estimator", given["estimator"])
