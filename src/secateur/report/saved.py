"""A report that was saved before."""

import json
from pathlib import Path

from secateur.errors import StorageError

FORMAT = "secateur report 1"


def saved_report(folder: Path, as_json: bool) -> str:
    """The text or the JSON of a saved report.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    try:
        written = (folder / "report.json").read_text(encoding="utf-8")
        content = json.loads(written)
        text = written if as_json else (folder / "report.txt").read_text(encoding="utf-8")
    except (OSError, ValueError) as failure:
        raise StorageError(
            f"{folder} holds no report that can be read: {failure}; give a folder that prune wrote"
        ) from failure
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StorageError(f"{folder / 'report.json'} is not a report of this version")
    return text.rstrip()
