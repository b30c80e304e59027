"""The outcomes of repairs as text."""

from collections.abc import Mapping, Sequence
from typing import Any


def _temperature_text(step: Mapping[str, Any]) -> str:
    """Return the temperature at which a repair was judged, if it is not 1; reports of earlier versions have none."""
    temperature = step.get("temperature", 1.0)
    return "" if temperature == 1 else f"; at temperature {temperature:g}"


def _training_text(step: Mapping[str, Any]) -> str:
    """Return how a training ran, if the repair was one; reports of earlier versions do not say it."""
    training = step.get("training", "")
    return f"; {training}" if training else ""


def repairs_text(steps: Sequence[Mapping[str, Any]]) -> str:
    """Describe the outcome of each repair."""
    if not steps:
        return "not repaired"
    outcomes = [
        f"repaired by {step['name']} (divergence {step['before']:.4f} -> {step['after']:.4f} held out, "
        f"{step['fitted']:.4f} on what it saw{_temperature_text(step)}{_training_text(step)})"
        if step["kept"]
        else f"{step['name']} did not bring it nearer and was left out"
        for step in steps
    ]
    return ", ".join(outcomes)
