"""The stage of `prune` that runs, read from the functions on the stack."""

import sys
import threading
import time
from types import FrameType
from typing import Any, Self

from cost.work import location_of

# the function and the end of its file's name -> the stage; the outermost one on the stack counts
ENTRIES = {
    ("trace", "secateur/tracing.py"): "trace",
    ("score", "importance/score.py"): "score",
    ("measured_curves", "allocation/measured_curves.py"): "curves",
    ("plan_sizes", "allocation/plan_sizes.py"): "plan",
    ("check_reachable", "allocation/reachable.py"): "plan",
    ("divergences", "allocation/simulate.py"): "simulate",
    ("divergences_of", "allocation/simulate.py"): "simulate",
    ("refit", "recovery/refit.py"): "refit",
    ("reconstruct_blocks", "recovery/block_reconstruction.py"): "adapt",
    ("cut", "surgery/cut.py"): "cut",
    ("measure_networks", "report/measured_report.py"): "report",
}
OTHER = "other"
STAGES = (*dict.fromkeys(ENTRIES.values()), OTHER)
INTERVAL = 0.005


def stage_of(frame: FrameType | None) -> str:
    """Return the stage that a frame belongs to."""
    stage = OTHER
    while frame is not None:
        name = frame.f_code.co_name
        for (function, file), entered_stage in ENTRIES.items():
            if name == function and frame.f_code.co_filename.endswith(file):
                stage = entered_stage
        frame = frame.f_back
    return stage


class StageSampler:
    """A thread that reads the main thread's stack every few milliseconds, and measures for the stage that runs.

    Args:
        interval: the seconds between two measurements.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval

    def begin(self) -> None:
        """Measure for the first time, before any stage."""

    def measure(self, frame: FrameType | None) -> None:
        """Measure for what runs, the innermost frame of the main thread."""
        raise TypeError(f"{type(self).__name__} does not measure anything")

    def __enter__(self) -> Self:
        self.begin()
        self._main, self._ended = threading.get_ident(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(self._interval):
            self.measure(sys._current_frames().get(self._main))


class TimeSampler(StageSampler):
    """The processor time of the process by stage and by function."""

    def __init__(self) -> None:
        super().__init__(INTERVAL)
        self.seconds: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Note the time so far."""
        self._before = time.process_time()

    def measure(self, frame: FrameType | None) -> None:
        """Add the time since the last measurement."""
        key, now = (stage_of(frame), location_of(frame)), time.process_time()
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._before
        self._before = now

    def by_stage(self) -> dict[str, float]:
        """Return the seconds of each stage."""
        totals = dict.fromkeys(STAGES, 0.0)
        for (stage, _), value in self.seconds.items():
            totals[stage] += value
        return totals
