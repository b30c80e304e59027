"""Stopping rules for Shapley values, for `score(..., stop=)`. Rules compose with `&` and `|`.

Examples:
    >>> from secateur.stopping import Seconds, SelectionConfident, StandardError
    >>> print(SelectionConfident(keep=0.5) | Seconds(600))
    95% confidence in each pair at the boundary of the lowest 50% or 600 seconds
    >>> print((StandardError(0.2) & SelectionConfident(keep=0.5)) | Seconds(600))  # doctest: +ELLIPSIS
    (a largest standard error of 0.2 of the spread of the scores and 95% confidence ...) or 600 seconds
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
