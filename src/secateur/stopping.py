"""When Shapley values are estimated well enough: rules for `score(..., stop=)`, which compose with `&` and `|`.

Example:
    >>> from secateur.stopping import Error, Known, Seconds
    >>> print((Error(0.2) & Known(keep=0.5)) | Seconds(600))
    ((errors of 0.2 of the spread & known which 50% go (95% each)) | 600 seconds)
"""

from secateur.importance.shapley.stopping import Coalitions, Error, Evaluations, Known, Rule, Seconds, Stable

__all__ = ["Coalitions", "Error", "Evaluations", "Known", "Rule", "Seconds", "Stable"]
