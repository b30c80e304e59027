"""The table of options: the values that each option of the public functions may have."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from secateur.errors import BudgetError, DataError, NameMatchError, OptionError
from secateur.options import Option, is_real, is_round, is_whole, kind_text, one_of, optional, whole_from
from secateur.options.selections import is_selection


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (_is_several(value) and all(isinstance(name, str) for name in value))  # type: ignore[attr-defined]


def _is_several(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _are_steps(value: object) -> bool:
    steps = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return all(isinstance(step, str) or callable(step) for step in steps)


NAMES = Option("a name or a list of names", _are_names)


SELECTION = Option("a name, a glob, a module, a class of modules, or a list of them", is_selection)


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


METRIC = Option(
    "a function of outputs and targets, which gives one number, or one value per example", callable, DataError
)


OPTIONS: Mapping[str, Option] = {
    "loss": optional(LOSS),
    "metric": optional(METRIC),
    "holdout": optional(Option("a fraction from 0 up and below 1", lambda v: is_real(v) and 0 <= v < 1, DataError)),
    "ablation": one_of("mean", "zero", "impute"),
    "aggregate": optional(AGGREGATE),
    "estimator": Option("the name of an estimator or a function", lambda v: isinstance(v, str) or callable(v)),
    "coalitions": optional(whole_from(1, "whole number of coalitions")),
    "protocol": optional(one_of("paper")),
    "only": optional(SELECTION),
    "skip": optional(SELECTION),
    "kinds": optional(SOME_NAMES),
    "seed": Option("a whole number from 0 to 2**63 - 1", lambda v: is_whole(v) and 0 <= v < 2**63),
    "length": whole_from(1, "whole number of tokens"),
    "tokens": whole_from(1, "whole number of tokens"),
    "context_length": optional(whole_from(1, "whole number of tokens")),
    "sequences": optional(whole_from(1, "whole number of rows")),
    "layout": optional(one_of("config")),
    "memory": optional(Option("a number of bytes from 1 up", lambda v: is_real(v) and v >= 1)),
    "precision": optional(one_of("float32", "bfloat16")),
    "checkpoint": optional(PATH),
    "folder": PATH,
    "allocation": optional(SOME_NAMES),
    "dropped": NAMES,
    "seconds": optional(Option("a number of seconds above 0", lambda v: is_real(v) and v > 0)),
    "rounds": Option("a whole number of rounds from 1 up", lambda v: is_whole(v) and v >= 1, BudgetError),
    "round_to": optional(Option("a whole number of units from 1 up", lambda v: is_round(v) and v >= 1, BudgetError)),
    "units_per_step": optional(
        Option("a whole number of units from 1 up", lambda v: is_round(v) and v >= 1, BudgetError)
    ),
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
    "fit": optional(Option("a function that fine-tunes a model in place", callable)),
    "variance": Option("a variance from 0 up", lambda v: is_real(v) and v >= 0, BudgetError),
    "ratios": optional(MAPPING),
    "sizes": optional(MAPPING),
    "batch_size": whole_from(1, "whole number of examples"),
    "learning_rate": Option("a number above 0", lambda v: is_real(v) and v > 0, DataError),
    "temperature": Option("a number above 0", lambda v: is_real(v) and v > 0, DataError),
    "augment": optional(Option("a function from a batch of inputs to others like them", callable)),
}


CLASS_TEXTS: Mapping[str, str] = {
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


def check_option(name: str, value: object, annotation: Any = None) -> None:
    """Check one option by the table, or if it is not there, by its annotation.

    Args:
        name: of the option.
        value: what the user gave.
        annotation: of the function's argument.

    Raises:
        SecateurError: the option may not have this value.
    """
    if name in OPTIONS:
        OPTIONS[name].check(name, value)
        return
    classes = classes_of(annotation)
    if classes and not isinstance(value, classes) and not _is_number_for(value, classes):
        names = [option_class.__name__ for option_class in classes if option_class is not NoneType]
        accepted_kinds = [CLASS_TEXTS.get(class_name, f"a {class_name}") for class_name in names]
        accepted_kinds += ["None"] if NoneType in classes else []
        raise OptionError(f"{name} is {kind_text(value)}; give {' or '.join(accepted_kinds)}")


def _is_number_for(value: object, classes: Sequence[type]) -> bool:
    """Return True for numbers that stand for these classes: numpy's numbers, and whole ones for fractions."""
    return (float in classes and is_real(value)) or (int in classes and is_whole(value))


def classes_of(annotation: Any) -> tuple[type, ...]:
    """Return the classes that an annotation allows; none if it allows more than instances of plain classes."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    classes = tuple(
        member for member in members if isinstance(member, type) and member is not Any and get_origin(member) is None
    )
    return classes if len(classes) == len(members) else ()


def as_path(value: str | Path, name: str) -> Path:
    """Return a path, checked.

    Args:
        value: what the user gave.
        name: of the argument.

    Raises:
        OptionError: it is no path.

    Examples:
        >>> as_path("small", "folder").name
        'small'
        >>> as_path(None, "folder")
        Traceback (most recent call last):
        ...
        secateur.errors.OptionError: folder=None (NoneType) can't be used; give a path
    """
    PATH.check(name, value)
    return Path(value)
