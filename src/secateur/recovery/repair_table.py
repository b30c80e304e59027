"""The repairs by name, their options, and what they are allowed."""

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.options import check_name
from secateur.options.table import check_option
from secateur.recovery.custom_repair import Trainer, check_three_arguments, custom_training
from secateur.recovery.training_task import TrainingFunction
from secateur.recovery.tune import tune

Repairs = Sequence[tuple[str, TrainingFunction]]
CLOSED_FORM = ("mean", "batchnorm", "refit", "adapt")
TRAINED: dict[str, TrainingFunction] = {"tune": tune}
DEFAULT_REPAIR = ("refit", "adapt")
ALLOWANCES = {"refit": 1.0, "adapt": 1.0, "tune": -1.0}  # standard errors by which a repair may be worse
SOLVED = ("refit", "adapt")
How = str | Trainer | Sequence[str | Trainer]
OPTIONS = ("steps", "learning_rate", "batch_size", "temperature", "augment")


def repair_names(how: How) -> str:
    """Return the names of one repair or several."""
    steps = [how] if isinstance(how, str) or callable(how) else how
    return "+".join(step if isinstance(step, str) else getattr(step, "__name__", "yours") for step in steps)


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options of repairs.

    Raises:
        NameMatchError: an option of training is unknown.
        OptionError: its value is of a wrong type or out of range.
    """
    for name, value in options.items():
        check_name(name, OPTIONS, "training has no option")
        check_option(name, value)


def resolve_repairs(how: How) -> list[tuple[str, TrainingFunction]]:
    """Return names and functions of repairs, in order; closed forms have none.

    Raises:
        NameMatchError: there is none of that name.
        OptionError: a function can't be called with three arguments.
    """
    repairs: list[tuple[str, TrainingFunction]] = []
    for item in [how] if isinstance(how, str) or callable(how) else how:
        if callable(item):
            name = getattr(item, "__name__", type(item).__name__)
            check_three_arguments(name, item)
            repairs.append((name, custom_training(name, item)))
        elif item in CLOSED_FORM or item in TRAINED:
            repairs.append((item, TRAINED.get(item, tune)))
        else:
            check_name(item, (*CLOSED_FORM, *TRAINED), "no repair is named")
    return repairs
