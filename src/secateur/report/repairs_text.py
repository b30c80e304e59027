"""The outcomes of repairs as text."""

from collections.abc import Mapping, Sequence
from typing import Any

FOUR_DECIMALS = 1e-3  # the least value of which four decimals show two digits


def _temperature_text(step: Mapping[str, Any]) -> str:
    """Return the temperature at which a repair was judged, if it is not 1; reports of earlier versions have none."""
    temperature = step.get("temperature", 1.0)
    return "" if temperature == 1 else f"; at temperature {temperature:g}"


def _training_text(step: Mapping[str, Any]) -> str:
    """Return how a training ran, if the repair was one; reports of earlier versions do not say it."""
    training = step.get("training", "")
    return f"; {training}" if training else ""


def divergence_text(value: float) -> str:
    """Return a divergence with four decimals, or with two digits where four decimals would have fewer.

    Examples:
        >>> divergence_text(2.05), divergence_text(0.000123), divergence_text(0.0)
        ('2.0500', '1.2e-04', '0.0000')
    """
    return f"{value:.4f}" if value == 0 or abs(value) >= FOUR_DECIMALS else f"{value:.1e}"


def repairs_text(steps: Sequence[Mapping[str, Any]]) -> str:
    """Describe the outcome of each repair."""
    return ", ".join(_outcome_text(step) for step in steps) if steps else "not repaired"


def _outcome_text(step: Mapping[str, Any]) -> str:
    """Describe the outcome of one repair."""
    if not step["kept"]:
        return f"{step['name']} did not bring it nearer and was left out"
    before, after, fitted = (divergence_text(step[name]) for name in ("before", "after", "fitted"))
    figures = f"divergence {before} -> {after} held out, {fitted} on the examples used"
    return f"repaired by {step['name']} ({figures}{_temperature_text(step)}{_training_text(step)})"
