"""What each option of the public functions may be, and what is said of a value that it may not be."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np

from secateur.errors import BudgetError, DataError, NameMatchError, OptionError, SecateurError


@dataclass(frozen=True)
class Option:
    """The values that an option may have.

    Args:
        wanted: these values, in words that follow "give".
        accepts: whether a value is one of them.
        error: what is raised for others.
        names: these values, where they are names.
    """

    wanted: str
    accepts: Callable[[Any], bool]
    error: type[SecateurError] = OptionError
    names: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> None:
        """
        Raises:
            SecateurError: the option may not have this value.
        """
        if self.names and isinstance(value, str):
            check_name(value, self.names, f"{name}={value!r} is unknown", shows=False)
        elif not self.accepts(value):
            raise self.error(f"{name}={shown(value)} ({type(value).__name__}) can't be used; give {self.wanted}")


def is_real(value: object) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def is_shape(value: object) -> bool:
    """Whether a value is several whole numbers from 1 up, as the sides of a block."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_whole(v) and v >= 1 for v in value)


def is_round(value: object) -> bool:
    """Whether a value is a whole number, also one written with a decimal point."""
    return is_real(value) and float(value).is_integer()  # type: ignore[arg-type]


def whole_from(least: int, of: str = "whole number") -> Option:
    """Whole numbers from a least one up."""
    return Option(f"a {of} from {least} up", lambda value: is_whole(value) and value >= least)


def optional(option: Option) -> Option:
    """The option's values, or None."""
    wanted = f"{option.wanted}, or None"
    return Option(wanted, lambda value: value is None or option.accepts(value), option.error, option.names)


def one_of(*names: str) -> Option:
    """One of several names."""
    wanted = f"one of {', '.join(map(repr, names))}"
    return Option(wanted, lambda value: isinstance(value, str) and value in names, NameMatchError, names)


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (_is_several(value) and all(isinstance(name, str) for name in value))  # type: ignore[attr-defined]


def _is_several(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _are_steps(value: object) -> bool:
    steps = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return all(isinstance(step, str) or callable(step) for step in steps)


NAMES = Option("a name or a list of names", _are_names)
SOME_NAMES = Option("a name or a list of one name or more", lambda value: _are_names(value) and len(value) > 0)
STEPS = Option("the name of a repair, a function, or a list of them", _are_steps)
PATH = Option("a path", lambda value: isinstance(value, str | os.PathLike))
MAPPING = Option("a dict", lambda value: isinstance(value, Mapping))
CRITERION = Option(
    "the name of a criterion (secateur.criteria() lists them), its configuration or a function",
    lambda value: isinstance(value, str) or callable(value) or is_dataclass(value),
    NameMatchError,
)
AGGREGATE = Option(
    "a name, a quantile between 0.0 and 1.0, or a function from (units, examples) to (units,)",
    lambda value: isinstance(value, str | float) or callable(value),
    NameMatchError,
)
LOSS = Option("a function of the output and the target, which gives one value per example", callable, DataError)

OPTIONS: Mapping[str, Option] = {
    "loss": optional(LOSS),
    "ablation": one_of("mean", "zero", "impute"),
    "aggregate": optional(AGGREGATE),
    "estimator": Option("the name of an estimator or a function", lambda v: isinstance(v, str) or callable(v)),
    "coalitions": optional(whole_from(1, "whole number of coalitions")),
    "protocol": optional(one_of("paper")),
    "only": optional(NAMES),
    "skip": optional(NAMES),
    "kinds": optional(SOME_NAMES),
    "seed": Option("a whole number from 0 to 2**63 - 1", lambda v: is_whole(v) and 0 <= v < 2**63),
    "memory": optional(Option("a number of bytes from 1 up", lambda v: is_real(v) and v >= 1)),
    "precision": optional(one_of("float32", "bfloat16")),
    "checkpoint": optional(PATH),
    "folder": PATH,
    "allocation": SOME_NAMES,
    "dropped": NAMES,
    "seconds": optional(Option("a number of seconds above 0", lambda v: is_real(v) and v > 0)),
    "rounds": Option("a whole number of rounds from 1 up", lambda v: is_whole(v) and v >= 1, BudgetError),
    "round_to": optional(Option("a whole number of units from 1 up", lambda v: is_round(v) and v >= 1, BudgetError)),
    "floor": Option(
        "a whole number of units, or a fraction of a group below 1",
        lambda v: is_real(v) and v >= 0 and (v < 1 or is_round(v)),
        BudgetError,
    ),
    "repair": optional(STEPS),
    "how": STEPS,
    "tuning": optional(MAPPING),
    "options": optional(MAPPING),
    "curves": optional(MAPPING),
    "steps": whole_from(1, "whole number of steps"),
    "soft_steps": whole_from(1, "whole number of steps"),
    "tuning_steps": whole_from(0, "whole number of steps"),
    "starts": Option("a whole number of starting points from 1 up", lambda v: is_whole(v) and v >= 1, BudgetError),
    "density": Option("a fraction above 0 and at most 1", lambda v: is_real(v) and 0 < v <= 1, BudgetError),
    "fade": optional(Option("a factor between 0 and 1", lambda v: is_real(v) and 0 < v < 1, BudgetError)),
    "ratios": optional(MAPPING),
    "batch_size": whole_from(1, "whole number of examples"),
    "learning_rate": Option("a number above 0", lambda v: is_real(v) and v > 0, DataError),
    "temperature": Option("a number above 0", lambda v: is_real(v) and v > 0, DataError),
    "augment": optional(Option("a function from a batch of inputs to others like them", callable)),
}

RENAMED_OPTIONS: Mapping[str, str] = {"removal": "ablation"}
RENAMED_VALUES: Mapping[tuple[str, object], object] = {("ablation", "refit"): "impute"}

ABOUT_CLASSES: Mapping[str, str] = {
    "Network": "a Network, as `secateur.trace` returns it",
    "Plan": "a Plan, as `secateur.plan` returns it",
    "Scores": "Scores, as `secateur.score` returns them",
    "Rule": "a rule of `secateur.stopping`, such as StandardError(0.2) | Seconds(60)",
    "LatencyTable": "a table of `secateur.evaluation.measured_latency.measure_latency`",
    "Optimizer": "an optimizer of torch.optim",
    "float": "a number",
    "int": "a whole number",
    "bool": "True or False",
}


def with_current_names(options: Mapping[str, Any], stacklevel: int = 2) -> dict[str, Any]:
    """Return options under their current names and values.

    Args:
        options: options by name, some perhaps of an earlier version.
        stacklevel: the frames from here to the caller to warn: 2 for the function that calls this one.

    Raises:
        OptionError: an option is given under its old and its current name.
    """
    current: dict[str, Any] = {}
    for old_name, old_value in options.items():
        name = RENAMED_OPTIONS.get(old_name, old_name)
        if name != old_name and name in options:
            raise OptionError(f"{old_name}= is the old name of {name}=; give {name}= alone")
        value = RENAMED_VALUES.get((name, old_value), old_value) if isinstance(old_value, str) else old_value
        if (name, value) != (old_name, old_value):
            warnings.warn(
                f"{old_name}={old_value!r} is now {name}={value!r}; the old form is removed in version 1.0",
                DeprecationWarning,
                stacklevel=stacklevel + 1,
            )
        current[name] = value
    return current


def check_name(name: str, known: Iterable[str], what: str, shows: bool = True) -> None:
    """
    Args:
        name: the name that was given.
        known: those that there are.
        what: what is said of it first, such as "`prune` has no option".
        shows: whether the name is repeated after that.

    Raises:
        NameMatchError: the name is unknown; the nearest is offered.
    """
    names = list(known)
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NameMatchError(f"{what}{f' {name!r}' if shows else ''}; {hint}known are {', '.join(names) or 'none'}")


def check_option(name: str, value: object, annotation: Any = None) -> None:
    """Check one option by the table, or if it is not there, by its annotation.

    Raises:
        SecateurError: it may not have this value.
    """
    if name in OPTIONS:
        OPTIONS[name].check(name, value)
        return
    classes = classes_of(annotation)
    if classes and not isinstance(value, classes) and not _is_number_for(value, classes):
        wanted = [ABOUT_CLASSES.get(each.__name__, f"a {each.__name__}") for each in classes if each is not NoneType]
        nothing = [] if NoneType not in classes else ["None"]
        raise OptionError(f"{name} is {described(value)}; give {' or '.join([*wanted, *nothing])}")


def _is_number_for(value: object, classes: Sequence[type]) -> bool:
    """Whether a value is as good as a number of one of these classes: numpy's numbers, and whole ones for fractions."""
    return (float in classes and is_real(value)) or (int in classes and is_whole(value))


def classes_of(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation allows; none where it allows more than instances of plain classes."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    classes = tuple(part for part in parts if isinstance(part, type) and part is not Any and get_origin(part) is None)
    return classes if len(classes) == len(parts) else ()


def shown(value: object) -> str:
    """A value as it is shown in a message, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def described(value: object) -> str:
    """What kind of thing a value is, in words."""
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
