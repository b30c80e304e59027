"""The settings of `compare`: its criteria and budgets, checked before any work is done."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from secateur.allocation.budget import parse_budgets
from secateur.allocation.config import check_allocation
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.plan import Budget
from secateur.errors import NameMatchError
from secateur.importance.registry import CriterionLike, find_criterion
from secateur.importance.score import check_scoring
from secateur.options import check_name
from secateur.options.renamed import with_current_names
from secateur.options.table import check_option
from secateur.recovery.repair_table import How, resolve_repairs

FRACTIONS = (0.75, 0.5, 0.25)
SHARED = ("ablation",)  # options of `score` that all criteria take, and that each may have for itself


def comparison_budgets(keep: Mapping[str, float | Sequence[float]] | None, sizes: Sizes | None) -> list[Budget]:
    """Return the budgets; without any, an empty one where sizes of groups are given, else the default."""
    if keep is None and sizes:
        return [{}]
    return parse_budgets({"macs": FRACTIONS} if keep is None else keep)


def options_by_current_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of each criterion, under the current names of options that were renamed."""
    current_options: dict[str, Any] = {}
    for name, settings in options.items():
        is_valid = isinstance(settings, Mapping)  # others are refused by `check_comparison`
        current_options[name] = with_current_names(settings, stacklevel=3) if is_valid else settings
    return current_options


def check_comparison(
    criteria: Mapping[str, CriterionLike],
    options: Mapping[str, Mapping[str, Any]],
    allocation: str,
    repair: How | None,
) -> None:
    """Check the settings before any work is done.

    Raises:
        SecateurError: one of them can't be used.
    """
    check_allocation(allocation)
    for name in options:
        check_name(name, criteria, "`compare` was given options for a criterion that is not compared:")
    for name, criterion in criteria.items():
        check_scoring(criterion, _without_shared(options.get(name, {})))
    if repair is not None:
        resolve_repairs(repair)


def _without_shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that criteria read.

    Raises:
        OptionError: they are no dict.
        NameMatchError: the ablation is unknown.
    """
    check_option("options", options)
    if "ablation" in options:
        check_option("ablation", options["ablation"])
    return {name: value for name, value in options.items() if name not in SHARED}


def named_criteria(by: Sequence[CriterionLike]) -> dict[str, CriterionLike]:
    """Return the criteria by their names.

    Raises:
        NameMatchError: there is none, or a name is unknown.
    """
    criteria_given = [by] if isinstance(by, str) or not isinstance(by, Iterable) else by
    criteria = {find_criterion(criterion).label: criterion for criterion in criteria_given}
    if not criteria:
        raise NameMatchError("by is empty; name criteria to compare, secateur.criteria() lists them")
    return criteria
