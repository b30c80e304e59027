"""Configurations of criteria: frozen dataclasses whose fields are the criterion's options, checked on construction."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from secateur.errors import OptionError
from secateur.options import Option
from secateur.options.call_checks import checked_calls


@checked_calls
@dataclass(frozen=True, kw_only=True)
class CriterionConfig:
    """The base of all configurations: a criterion's options, with their defaults.

    A subclass declares one field for each option. Fields made by `option_field` are checked on construction.

    Examples:
        >>> from secateur.options import Option
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Strength(CriterionConfig):
        ...     power: float = option_field(1.0, Option("a number above 0", lambda value: value > 0))
        >>> Strength(power=2.0)
        Strength(power=2.0)
        >>> Strength(power=-1.0)
        Traceback (most recent call last):
        ...
        secateur.errors.OptionError: power=-1.0 (float) can't be used; give a number above 0
    """

    is_resumable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            option = entry.metadata.get("option")
            if option is not None:
                option.check(entry.name, getattr(self, entry.name))
        for name, value in self.changed_options().items():
            if name not in self.applicable_options:
                raise OptionError(f"{name}={value!r} does not apply to {self.variant}; leave it out")

    @property
    def applicable_options(self) -> frozenset[str]:
        """The names of the options that have an effect beside the others' values; all by default."""
        return frozenset(entry.name for entry in fields(self))

    @property
    def variant(self) -> str:
        """The criterion in words, for messages about options that do not apply."""
        return type(self).__name__

    @property
    def required_ablation(self) -> str | None:
        """The ablation that the configuration implies, or None where the caller chooses it."""
        return None

    def changed_options(self) -> dict[str, Any]:
        """Return the options whose values are not the class's defaults, by name."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


@checked_calls
def option_field(default: Any, option: Option, keyword: str | None = None) -> Any:
    """Declare a field of a configuration with the values that it may have.

    Args:
        default: the field's default.
        option: the values that are accepted.
        keyword: the keyword of `score` that sets the field where a criterion is given by its name; None for the
            field's own name.
    """
    return field(default=default, metadata={"option": option, "keyword": keyword})


def options_by_keyword(config: CriterionConfig) -> Mapping[str, tuple[str, Option | None]]:
    """Return the name and the accepted values of each applicable option, by the keyword of `score` that sets it."""
    return {
        entry.metadata.get("keyword") or entry.name: (entry.name, entry.metadata.get("option"))
        for entry in fields(config)
        if entry.name in config.applicable_options
    }
