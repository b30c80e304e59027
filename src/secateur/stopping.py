"""Stopping rules for Shapley values, for `score(..., stop=)`. Rules compose with `&` and `|`.

Examples:
    >>> from secateur.stopping import Seconds, SelectionConfident, StandardError
    >>> print((StandardError(0.2) & SelectionConfident(keep=0.5)) | Seconds(600))
    ((errors of 0.2 of the spread & clear which 50% are removed (95% each)) | 600 seconds)
"""

import warnings
from typing import Any

from secateur.importance.shapley.stopping import Coalitions, Evaluations, Rule, Seconds
from secateur.importance.shapley.stopping_statistics import SelectionConfident, Stable, StandardError

__all__ = ["Coalitions", "Evaluations", "Rule", "Seconds", "SelectionConfident", "Stable", "StandardError"]

DEPRECATED = {"Error": StandardError, "Known": SelectionConfident}


def __getattr__(name: str) -> Any:
    if name in DEPRECATED:
        renamed = DEPRECATED[name]
        message = f"secateur.stopping.{name} is now called {renamed.__name__}; the old name goes in version 1.0"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return renamed
    raise AttributeError(f"module 'secateur.stopping' has no attribute {name!r}")
