"""Stopping rules for Shapley values, for `score(..., stop=)`. Rules compose with `&` and `|`.

Examples:
    >>> from secateur.stopping import Seconds, SelectionConfident, StandardError
    >>> print((StandardError(0.2) & SelectionConfident(keep=0.5)) | Seconds(600))
    ((errors of 0.2 of the spread & clear which 50% are removed (95% each)) | 600 seconds)
"""

from typing import Any

from secateur.importance.shapley.stopping import Coalitions, Evaluations, Rule, Seconds
from secateur.importance.shapley.stopping_statistics import SelectionConfident, Stable, StandardError
from secateur.utils.deprecation import deprecated_attribute

__all__ = ["Coalitions", "Evaluations", "Rule", "Seconds", "SelectionConfident", "Stable", "StandardError"]

RENAMED = {
    "Error": ("secateur.stopping.StandardError", StandardError),
    "Known": ("secateur.stopping.SelectionConfident", SelectionConfident),
}


def __getattr__(name: str) -> Any:
    return deprecated_attribute(__name__, name, RENAMED)
