"""Times of operators on this machine, kept on disk between runs: a table that may be lost at any time."""

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from secateur.errors import StorageError
from secateur.evaluation.runtimes import EAGER, runtime_version
from secateur.files import Record, read_record, record_writer, write_file
from secateur.utils.devices import runtime_clock

VARIABLE = "SECATEUR_CACHE"
RUNS = 3
LEAST_SECONDS = 2e-3


class SavedTimes(Record, frozen=True):
    """Seconds by a description of the operator and its arguments."""

    FORMAT: ClassVar[str] = "secateur times/1"

    format: str
    seconds: dict[str, float]
    checksum: str = ""


class Timings:
    """Seconds of operators, measured once on a machine.

    Args:
        device: on which they run.
        runtime: in which they run, as in `secateur.evaluation.runtimes`.
    """

    def __init__(self, device: torch.device, runtime: str = EAGER) -> None:
        self._path = _table_path(device, runtime)
        self._seconds = dict(_read(self._path))
        self._is_changed = False

    def seconds(self, description: str, call: Callable[[], Any]) -> float:
        """The seconds that a call takes, from the table if it is there.

        Args:
            description: the operator with all that its time depends on, but for the machine.
            call: runs it.
        """
        return self.recall(description, lambda: measured_seconds(call))

    def recall(self, description: str, measure: Callable[[], float]) -> float:
        """The seconds of an operator, from the table if they are there, else as measured.

        Args:
            description: the operator with all that its time depends on, but for the machine.
            measure: gives the seconds.
        """
        if description not in self._seconds:
            self._seconds[description] = measure()
            self._is_changed = True
        return self._seconds[description]

    def save(self) -> None:
        """Write the table; where another process wrote one meanwhile, what both measured.

        A table that can't be written is measured again next time.
        """
        if self._path is None or not self._is_changed:
            return
        seconds = {**_read(self._path), **self._seconds}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, record_writer(SavedTimes(format=SavedTimes.FORMAT, seconds=seconds)))
        except (OSError, StorageError):
            return


def measured_seconds(call: Callable[[], Any]) -> float:
    """The least mean of a few series of runs, on as many threads as torch uses now."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads(), timer=runtime_clock())
    once = timer.timeit(1).mean
    count = max(1, min(20, round(LEAST_SECONDS / max(once, 1e-7))))
    return float(min(timer.timeit(count).mean for _ in range(RUNS)))


def cache_folder() -> Path | None:
    """Where tables are kept: the folder that SECATEUR_CACHE names, none if that is empty, else the user's cache."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "secateur"


def _table_path(device: torch.device, runtime: str) -> Path | None:
    """The table's file: another one for each machine, runtime and its release, device and number of threads."""
    folder = cache_folder()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    capability = torch.backends.cpu.get_cpu_capability()
    release = runtime_version(runtime)
    about = (platform.node(), platform.machine(), platform.processor(), capability, runtime, release, name)
    digest = hashlib.sha256("\n".join((*about, str(torch.get_num_threads()))).encode()).hexdigest()[:16]
    return None if folder is None else folder / f"times-{digest}.json"


def _read(path: Path | None) -> dict[str, float]:
    """The table; empty where there is none, or one that can't be read."""
    try:
        record = None if path is None or not path.exists() else read_record(path, (SavedTimes,))
    except (OSError, StorageError):
        return {}
    return {} if record is None else {key: value for key, value in record.seconds.items() if value > 0}
