"""Criteria by name. A criterion is a function from a context, and its configuration, to a score for every unit."""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, overload

from torch import Tensor

from secateur.errors import NameMatchError, OptionError
from secateur.importance.config import CriterionConfig, options_by_keyword
from secateur.importance.context import CriterionContext
from secateur.importance.criteria_table import Criteria
from secateur.importance.criterion_facts import FACTS, UNKNOWN, CriterionFacts
from secateur.importance.legacy_options import config_of_option_names, with_option_mapping
from secateur.importance.scores import GroupScores
from secateur.options import Option, check_name, kind_text
from secateur.options.call_checks import checked_calls
from secateur.options.foreign_names import FOREIGN_CRITERIA, familiar_name
from secateur.options.table import CRITERION

Config = TypeVar("Config", bound=CriterionConfig)
UnitScores = Mapping[str, Tensor | GroupScores]
Criterion = Callable[[CriterionContext], UnitScores]
CriterionLike = str | Criterion | CriterionConfig
ConfiguredCriterion = Callable[[CriterionContext, Config], UnitScores]
Use = Literal["nothing", "loss", "gradients", "unknown"]
PACKAGE = "secateur.importance."


@checked_calls
@dataclass(frozen=True)
class RegisteredCriterion:
    """A criterion with its name and configuration.

    Args:
        name: the criterion's name.
        function: the criterion; it takes the configuration as its second argument where there is one.
        config: the configuration; None for a criterion without options.
        uses: what the criterion reads of the examples' losses: nothing, their values, or their gradients as well; or
            "unknown".
    """

    name: str
    function: Callable[..., UnitScores]
    config: CriterionConfig | None = None
    uses: Use = "unknown"

    def __call__(self, context: CriterionContext) -> UnitScores:
        """Return the scores of all groups of a context."""
        return self.function(context) if self.config is None else self.function(context, self.config)

    @property
    def label(self) -> str:
        """The name, with the options whose values differ from those that the name stands for."""
        if self.config is None:
            return self.name
        preset = _criteria[self.name].config
        changed_options = [
            f"{entry.name}={value!r}"
            for entry in fields(self.config)
            if (value := getattr(self.config, entry.name)) != getattr(preset, entry.name)
        ]
        return f"{self.name}({', '.join(changed_options)})" if changed_options else self.name

    @property
    def options(self) -> Mapping[str, Any]:
        """The values of the applicable options, by name."""
        return {name: getattr(self.config, name) for name, _ in self.keywords.values()}

    @property
    def keywords(self) -> Mapping[str, tuple[str, Option | None]]:
        """The name and the accepted values of each applicable option, by the keyword of `score` that sets it."""
        return {} if self.config is None else options_by_keyword(self.config)

    @property
    def configuration(self) -> str:
        """The configuration that the name stands for, as it is written; empty where there are no options."""
        options = ", ".join(f"{option}={value!r}" for option, value in self.options.items()) if self.config else ""
        return "" if self.config is None else f"{type(self.config).__name__}({options})"

    @property
    def facts(self) -> CriterionFacts:
        """The cost of the criterion, and its source."""
        return FACTS.get(self.name, UNKNOWN) if self.function.__module__.startswith(PACKAGE) else UNKNOWN

    @property
    def gradients(self) -> str:
        """The need of gradients: "yes", "no" or "unknown"."""
        if self.facts is UNKNOWN:
            return {"gradients": "yes", "unknown": "unknown"}.get(self.uses, "no")
        return "yes" if "backward" in self.facts.passes else "no"

    @property
    def summary(self) -> str:
        """The first line of the criterion's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


_criteria: dict[str, RegisteredCriterion] = {}


@checked_calls
@overload
def criterion(name: str, *, uses: Use = "unknown") -> Callable[[Criterion], Criterion]: ...


@checked_calls
@overload
def criterion(
    name: str, *, config: Config, uses: Use = "unknown"
) -> Callable[[ConfiguredCriterion[Config]], ConfiguredCriterion[Config]]: ...


@checked_calls
@overload
def criterion(
    name: str, *, options: Collection[str], uses: Use = "unknown", estimators: Collection[str] | None = None
) -> Callable[[Criterion], Criterion]: ...


@checked_calls
def criterion(
    name: str,
    *,
    config: CriterionConfig | None = None,
    uses: Use = "unknown",
    options: Collection[str] | None = None,
    estimators: Collection[str] | None = None,
) -> Callable[[Any], Any]:
    """Register a function as a criterion, so that `score(..., by=name)` finds it.

    The function takes a `CriterionContext`. It returns, for every group in `context.groups` by its name, one score per
    unit (units,), or one per unit and example (units, examples), whose mean and standard error are then taken. Units
    with low scores are removed first.

    Args:
        name: the criterion's name.
        config: the configuration that the name stands for, where the criterion has options: an instance of a frozen
            dataclass derived from `secateur.importance.CriterionConfig`. The function takes it as its second argument,
            and `score(..., by=config)` runs the criterion with other values.
        uses: what the criterion reads of the examples' losses, which are then checked beforehand: "nothing", "loss" for
            their values, or "gradients".
        options: the keywords of `score` that the criterion reads in `context.options`, as in version 0.9. Deprecated:
            declare a `config`.
        estimators: the values of the keyword "estimator" in that form.

    Examples:
        >>> import secateur as sc
        >>> @sc.criterion("first-come")
        ... def first_come(context):
        ...     return {group.name: torch.arange(group.size) for group in context.groups}
        >>> "first-come" in sc.criteria()
        True
    """

    def register(function: Callable[..., UnitScores]) -> Callable[..., UnitScores]:
        if options is None:
            _criteria[name] = RegisteredCriterion(name, function, config, uses)
        else:
            legacy_config = config_of_option_names(options, estimators)
            _criteria[name] = RegisteredCriterion(name, with_option_mapping(function), legacy_config, uses)
        return function

    if options is not None:
        warnings.warn(
            f"options= of the criterion {name!r} is removed in version 1.0; declare a configuration, "
            f"criterion({name!r}, config=...)",
            DeprecationWarning,
            stacklevel=3,  # the caller of the checked function
        )
    return register


@checked_calls
def criteria() -> Criteria:
    """Return all registered criteria by name: a mapping, and a table to print, to show in notebooks, or `to_frame()`.

    The table says what each costs in passes over the data, whether it reads labels and needs gradients, its source, and
    the configuration that its name stands for. docs/criteria.md describes the scores.

    Examples:
        >>> import secateur as sc
        >>> header, *rows = str(sc.criteria()).splitlines()
        >>> print(header)
        criterion passes over the data labels gradients source options
        >>> next(row for row in rows if row.startswith("apoz"))
        'apoz 1 forward not read no Hu et al. 2016'
        >>> sc.criteria()["integrated-gradients"].options
        {'steps': 16}
    """
    return Criteria(_criteria)


def find_criterion(by: CriterionLike) -> RegisteredCriterion:
    """Return the criterion of a name, a function or a configuration.

    Raises:
        NameMatchError: no criterion has that name; the nearest and all names are listed.
        OptionError: a class was given in place of a configuration, or one that belongs to no criterion.
    """
    if isinstance(by, type) and issubclass(by, CriterionConfig):
        raise OptionError(f"by is the class {by.__name__}; give an instance of it, by={by.__name__}()")
    CRITERION.check("by", by)
    if isinstance(by, CriterionConfig):
        return replace(_preset_of(by), config=by)
    if isinstance(by, str):
        familiar = None if by in _criteria else familiar_name(by, FOREIGN_CRITERIA)
        if familiar is not None:
            raise NameMatchError(
                f"no criterion is named {by!r}; did you mean {familiar!r}? secateur.criteria() lists all"
            )
        check_name(by, sorted(_criteria), "no criterion is named")
        return _criteria[by]
    if not callable(by) or isinstance(by, type):
        raise OptionError(f"by is {kind_text(by)}, which is no criterion and no configuration of one")
    return RegisteredCriterion(getattr(by, "__name__", type(by).__name__), by)


def _preset_of(config: CriterionConfig) -> RegisteredCriterion:
    """Return the criterion whose name stands for the configuration, or for one with fewer of its options set.

    Raises:
        OptionError: no criterion was registered with such a configuration.
    """
    changed_options = config.changed_options()
    candidates = {
        entry.name: preset.items()
        for entry in _criteria.values()
        if type(entry.config) is type(config)
        and (preset := entry.config.changed_options()).items() <= changed_options.items()
    }
    if not candidates:
        raise OptionError(
            f"{type(config).__name__} is the configuration of no criterion; register one by secateur.criterion(name, "
            f"config={type(config).__name__}())"
        )
    return _criteria[max(candidates, key=lambda name: len(candidates[name]))]
