"""Keywords of `score` that set the options of a criterion's configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from secateur.errors import OptionError
from secateur.importance.config import CriterionConfig
from secateur.importance.registry import CriterionLike, RegisteredCriterion, criteria, find_criterion

UNSET: Mapping[str, Any] = {"estimator": "auto"}  # keywords of `score` whose default is not None


def configured_criterion(by: CriterionLike, keywords: Mapping[str, Any]) -> RegisteredCriterion:
    """Return a criterion with the options that keywords of `score` set.

    Args:
        by: a name, a function or a configuration.
        keywords: keywords of `score`; those that are None, or an estimator "auto", set nothing. `resume` is checked
            and sets nothing.

    Raises:
        NameMatchError: no criterion has that name, or an option's value is an unknown name.
        OptionError: a keyword does not apply to the criterion, is given beside a configuration, or has a wrong value.
    """
    entry = find_criterion(by)
    values = {name: value for name, value in keywords.items() if value is not None and value != UNSET.get(name)}
    if values.pop("resume", None) is not None and not (entry.config and entry.config.is_resumable):
        resumable = [name for name, other in criteria().items() if other.config and other.config.is_resumable]
        raise OptionError(
            f"resume= does not apply to by={_criterion_text(by)}; leave it out, or rank by {', '.join(resumable)}"
        )
    if entry.config is None and not values:
        return entry
    changes = {}
    for keyword, value in values.items():
        name, option = _option_of_keyword(entry, by, keyword)
        if option is not None:
            option.check(keyword, value)
        changes[name] = value
    return replace(entry, config=replace(entry.config, **changes)) if entry.config is not None else entry


def _option_of_keyword(entry: RegisteredCriterion, by: object, keyword: str) -> tuple[str, Any]:
    """Return the option that a keyword of `score` sets, with its accepted values.

    Raises:
        OptionError: the criterion has no such option, or it is given by a configuration, which holds it already.
    """
    options = entry.keywords
    if keyword not in options:
        names = [name for name, other in criteria().items() if keyword in other.keywords]
        raise OptionError(
            f"{keyword}= does not apply to by={_criterion_text(by)}; leave it out, or rank by {', '.join(names)}"
        )
    if isinstance(by, CriterionConfig):
        name = options[keyword][0]
        raise OptionError(
            f"{keyword}= is given beside by={type(by).__name__}(); set it there: by={type(by).__name__}({name}=...)"
        )
    return options[keyword]


def _criterion_text(by: object) -> str:
    return f"{type(by).__name__}()" if isinstance(by, CriterionConfig) else repr(by)
