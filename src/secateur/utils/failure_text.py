"""Exceptions of the user's code, as one phrase for a message."""

import traceback
from pathlib import Path


def failure_text(failure: BaseException) -> str:
    """Describe an exception by its class and its text, or by the line that raised it where it has no text.

    Examples:
        >>> failure_text(ValueError("no such layer"))
        'ValueError: no such layer'
    """
    name, text = type(failure).__name__, str(failure)
    frames = traceback.extract_tb(failure.__traceback__)
    if text or not frames:
        return f"{name}: {text}" if text else name
    frame = frames[-1]
    return f"{name} in line {frame.lineno} of {Path(frame.filename).name}: {frame.line}"
