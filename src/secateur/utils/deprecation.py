"""Former names of public things, which work with a warning until version 1.0."""

import warnings
from collections.abc import Mapping
from typing import Any


def deprecated_attribute(module: str, name: str, renamed: Mapping[str, tuple[str, Any]]) -> Any:
    """Return what a former name of a module stands for now, with a warning; the body of a module's `__getattr__`.

    Args:
        module: the module that had the name, `__name__`.
        name: the attribute that is looked up.
        renamed: for each former name where the value is found now, such as "secateur.training.distillation", and the
            value.

    Raises:
        AttributeError: The module never had such a name.
    """
    if name not in renamed:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    current, value = renamed[name]
    message = f"{module}.{name} is deprecated and will be removed in version 1.0; use {current}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return value


def renamed_attribute(before: str, current: str) -> Any:
    """Return a property that gives another attribute, with a warning.

    Args:
        before: the former name.
        current: the name today.
    """

    def value(instance: object) -> Any:
        warnings.warn(
            f"{type(instance).__name__}.{before} is now {current}; the old name is removed in version 1.0",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(instance, current)

    return property(value, doc=f"The attribute `{current}`, by its name of version 0.13.")
