"""The output of commands: text, or one JSON object with `--json`, or nothing with `--quiet`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CommandOutput:
    """The result of a command, in words and as plain values.

    Args:
        text: for people.
        record: for programs, in values that JSON has; paths become texts.
    """

    text: str
    record: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the record as one line of JSON; numbers that are not finite are null."""
        return json.dumps(_plain(self.record), allow_nan=False)


def _plain(value: Any) -> Any:
    """Return a value in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
