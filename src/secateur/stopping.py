"""When Shapley values are estimated well enough: rules for `score(..., stop=)`, which compose with `&` and `|`.

Example:
    >>> from secateur.stopping import StandardError, SelectionConfident, Seconds
    >>> print((Error(0.2) & Known(keep=0.5)) | Seconds(600))
    ((errors of 0.2 of the spread & known which 50% go (95% each)) | 600 seconds)
"""

from secateur.importance.shapley.stopping import (
    Coalitions,
    Evaluations,
    Rule,
    Seconds,
    SelectionConfident,
    Stable,
    StandardError,
)

__all__ = ["Coalitions", "StandardError", "Evaluations", "SelectionConfident", "Rule", "Seconds", "Stable"]
