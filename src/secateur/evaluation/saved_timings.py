"""Times of operators on this machine, kept on disk between runs: a table that may be lost at any time."""

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch

from secateur.errors import StorageError
from secateur.evaluation.runtimes import EAGER, runtime_version
from secateur.files import Record, read_record, record_writer, write_file

VARIABLE = "SECATEUR_CACHE"


class SavedTimes(Record, frozen=True):
    """Seconds by a description of the operator and its arguments."""

    FORMAT: ClassVar[str] = "secateur times/1"

    format: str
    seconds: dict[str, float]
    checksum: str = ""


class Timings:
    """Seconds of operators, each measured once on a machine.

    Args:
        device: the device on which they run.
        runtime: the runtime, as in `secateur.evaluation.runtimes`.
    """

    def __init__(self, device: torch.device, runtime: str = EAGER) -> None:
        self._path = _table_path(device, runtime)
        self._seconds = dict(_read_table(self._path))
        self._is_changed = False

    def recall(self, description: str, measure: Callable[[], float]) -> float:
        """Return the seconds of an operator: from the table if they are there, else measured now.

        Args:
            description: the operator with all that its time depends on, but for the machine.
            measure: measures the seconds.
        """
        if description not in self._seconds:
            self._seconds[description] = measure()
            self._is_changed = True
        return self._seconds[description]

    def save(self) -> None:
        """Write the table; if another process has written one meanwhile, the entries of both.

        A table that can't be written is measured again next time.
        """
        if self._path is None or not self._is_changed:
            return
        seconds = {**_read_table(self._path), **self._seconds}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, record_writer(SavedTimes(format=SavedTimes.FORMAT, seconds=seconds)))
        except (OSError, StorageError):
            return


def cache_folder() -> Path | None:
    """Return the folder of the tables: the one that SECATEUR_CACHE names, none if that is empty, else the user's cache.

    Returns:
        The folder, or None where no table is kept.
    """
    folder_name = os.environ.get(VARIABLE)
    if folder_name is not None:
        return Path(folder_name) if folder_name else None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "secateur"


def _table_path(device: torch.device, runtime: str) -> Path | None:
    """Return the table's file: one for each machine, runtime and its release, device and number of threads."""
    folder = cache_folder()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    capability = torch.backends.cpu.get_cpu_capability()
    release = runtime_version(runtime)
    machine = (platform.node(), platform.machine(), platform.processor(), capability, runtime, release, name)
    digest = hashlib.sha256("\n".join((*machine, str(torch.get_num_threads()))).encode()).hexdigest()[:16]
    return None if folder is None else folder / f"times-{digest}.json"


def _read_table(path: Path | None) -> dict[str, float]:
    """Return the table; empty if there is none, or one that can't be read."""
    try:
        record = None if path is None or not path.exists() else read_record(path, (SavedTimes,))
    except (OSError, StorageError):
        return {}
    return {} if record is None else {key: value for key, value in record.seconds.items() if value > 0}
