"""Kinds of options, checks of values and names, and the words for them in messages."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

from secateur.errors import NameMatchError, OptionError, SecateurError

SHORTEST_PREFIX = 3  # letters of a shortened name that the whole name is offered for


@dataclass(frozen=True)
class Option:
    """The values that an option may have.

    Args:
        wording: these values, in words that follow "give".
        accepts: returns True for these values.
        error: raised for others.
        names: these values, where they are names.
    """

    wording: str
    accepts: Callable[[Any], bool]
    error: type[SecateurError] = OptionError
    names: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> None:
        """Check a value.

        Args:
            name: of the option.
            value: what the user gave.

        Raises:
            SecateurError: the option may not have this value.
        """
        if self.names and isinstance(value, str):
            check_name(value, self.names, f"{name}={value!r} is unknown", shows=False)
        elif not self._accepts(value):
            raise self.error(f"{name}={short_text(value)} ({type(value).__name__}) can't be used; give {self.wording}")

    def _accepts(self, value: object) -> bool:
        """Return True for these values, and False where the test is not made for the value's type."""
        try:
            return self.accepts(value)
        except TypeError:
            return False


def is_real(value: object) -> bool:
    """Return True for a finite number that is no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Return True for a whole number that is no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def is_block_shape(value: object) -> bool:
    """Return True for several whole numbers from 1 up, such as the sides of a block."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_whole(v) and v >= 1 for v in value)


def is_round(value: object) -> bool:
    """Return True for a whole number, also one written with a decimal point."""
    return is_real(value) and float(value).is_integer()  # type: ignore[arg-type]


def whole_from(least: int, of: str = "whole number") -> Option:
    """Accept whole numbers from a least one up."""
    return Option(f"a {of} from {least} up", lambda value: is_whole(value) and value >= least)


def optional(option: Option) -> Option:
    """Accept the option's values, or None."""
    wording = f"{option.wording}, or None"
    return Option(wording, lambda value: value is None or option.accepts(value), option.error, option.names)


def one_of(*names: str) -> Option:
    """Accept one of several names."""
    wording = f"one of {', '.join(map(repr, names))}"
    return Option(wording, lambda value: isinstance(value, str) and value in names, NameMatchError, names)


def check_name(name: str, known_names: Iterable[str], message: str, shows: bool = True) -> None:
    """Check a name against those that there are.

    Args:
        name: what the user gave.
        known_names: the names that there are.
        message: the beginning of the message, such as "`prune` has no option".
        shows: whether the name is repeated after that.

    Raises:
        NameMatchError: the name is unknown; the nearest is offered.
    """
    names = list(known_names)
    if name not in names:
        longer = [longer_name for longer_name in names if len(name) >= SHORTEST_PREFIX and longer_name.startswith(name)]
        by_small_letters = {longer_name.lower(): longer_name for longer_name in reversed(names)}
        nearest = [by_small_letters[key] for key in get_close_matches(name.lower(), by_small_letters, 1)] or longer
        nearest = nearest or [word for word in name.split() if word in names]  # "key-value heads" are heads
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        separate_names = [piece.strip() for piece in name.split(",")]
        if len(separate_names) > 1 and set(separate_names) <= set(names):
            hint = f"these are {len(separate_names)} names: give a list of them, or the option once for each; "
        raise NameMatchError(f"{message}{f' {name!r}' if shows else ''}; {hint}known are {', '.join(names) or 'none'}")


def short_text(value: object) -> str:
    """Return a value in the form for a message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_text(value: object) -> str:
    """Return the kind of a value, in words."""
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else with_article(type(value).__name__)


def with_article(noun: str) -> str:
    """Return a noun with the indefinite article that its first letter asks for.

    Examples:
        >>> with_article("int"), with_article("Tensor")
        ('an int', 'a Tensor')
    """
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
