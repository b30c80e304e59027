"""Criteria registered as in version 0.9, which read keywords of `score` in `context.options`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, make_dataclass
from functools import wraps
from typing import Any

from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.context import CriterionContext
from secateur.options import Option, one_of, optional
from secateur.options.table import OPTIONS

ANY_VALUE = Option("any value", lambda value: True)


@dataclass(frozen=True)
class ContextWithOptions(CriterionContext):
    """A context with a mapping of the keywords that a criterion named on registration.

    Args:
        options: the value of each keyword, None where it was not given.
    """

    options: Mapping[str, Any] | None = None


def config_of_option_names(names: Collection[str], estimators: Collection[str] | None) -> CriterionConfig | None:
    """Make a configuration with one field for each of these keywords of `score`; None where there is none.

    Args:
        names: the keywords.
        estimators: the values that "estimator" accepts; None for any.
    """
    values = {name: optional(OPTIONS.get(name, ANY_VALUE)) for name in names if name != "resume"}
    if "estimator" in values and estimators is not None:
        values["estimator"] = optional(one_of("auto", *estimators))
    options = [(name, Any, option_field(None, option)) for name, option in values.items()]
    config: CriterionConfig = make_dataclass(
        "LegacyOptions", options, bases=(CriterionConfig,), frozen=True, kw_only=True
    )()
    return config if options else None


def with_option_mapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a criterion that reads `context.options` as one that takes a configuration."""

    @wraps(function)
    def run(context: CriterionContext, config: CriterionConfig | None = None) -> Any:
        options = {} if config is None else {entry.name: getattr(config, entry.name) for entry in fields(config)}
        values = {entry.name: getattr(context, entry.name) for entry in fields(context)}
        return function(ContextWithOptions(**values, options=options))

    return run
