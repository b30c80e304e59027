"""Options under the names and values of earlier versions, which are accepted with a warning until version 1.0."""

import warnings
from collections.abc import Mapping
from typing import Any

from secateur.errors import OptionError

RENAMED_OPTIONS: Mapping[str, str] = {"removal": "ablation"}


RENAMED_VALUES: Mapping[tuple[str, object], object] = {("ablation", "refit"): "impute"}


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
