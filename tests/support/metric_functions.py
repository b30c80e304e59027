"""Metrics of a user's own, for tests of reports and bounds."""

from torch import Tensor


def f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the harmonic mean of precision and recall of class 1."""
    predicted = outputs.argmax(1)
    hits = ((predicted == 1) & (targets == 1)).sum()
    return 2 * hits / ((predicted == 1).sum() + (targets == 1).sum())
