"""The display of a run's progress: a bar on terminals and in notebooks, lines elsewhere, and records of a logger.

A thread of its own draws the bar and writes the lines, so that long calls into torch are not silent, and loops only
count. Nothing is written to standard output.
"""

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from contextvars import copy_context
from typing import Any, Protocol

from secateur.utils.distributed import process_rank

LOGGER = logging.getLogger("secateur")
FRAME = 0.25  # seconds between two drawings of the bar
DELAY = 1e-9  # seconds; tqdm shows nothing before the first drawing where it is above 0
SILENCE = 9.0  # seconds without a line
SHORT = 1.0  # seconds of a stage that gets no line of its own where no logger is configured
DRAWING = threading.RLock()  # held while anything is drawn, so that no process is forked meanwhile
os.register_at_fork(before=DRAWING.acquire, after_in_parent=DRAWING.release, after_in_child=DRAWING.release)


class ProgressState(Protocol):
    """The state of a run, as reporters read it."""

    def text(self) -> str:
        """Return the state of the run in one line."""

    def title(self) -> str:
        """Return the names of all that is running."""

    def counts(self) -> tuple[float, float | None, float]:
        """Return the number of completed parts, of all parts, and the seconds of the outermost loop that counts."""


class ProgressReporter:
    """Reports of one run.

    Args:
        has_bar: whether a bar is drawn.
        prints: whether lines are written to standard error where no logger is configured.
        clock: returns the time in seconds.
    """

    def __init__(self, has_bar: bool, prints: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar = ProgressBar() if has_bar else None
        self._prints = prints
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._clock, self._last_line = clock, clock()

    def start(self, run: ProgressState) -> None:
        """Watch a run, in a thread of its own if anybody reads the reports."""
        if self._bar is not None or self._prints or (LOGGER.hasHandlers() and LOGGER.isEnabledFor(logging.INFO)):
            context = copy_context()  # kernels of notebooks tell by it which cell an output belongs to
            self._thread = threading.Thread(
                target=context.run, args=(self._watch, run), name="secateur progress", daemon=True
            )
            self._thread.start()

    def _watch(self, run: ProgressState) -> None:
        while not self._is_over.wait(FRAME):
            self.tick(run)

    def tick(self, run: ProgressState) -> None:
        """Draw the bar, and write a line if there was none for some seconds."""
        with DRAWING:
            if self._is_over.is_set():
                return
            if self._clock() - self._last_line >= SILENCE:
                self._write(run.text())
            if self._bar is not None:
                self._bar.draw(run)

    def info(self, text: str, seconds: float) -> None:
        """Report the end of a stage that took so many seconds."""
        self._write(text, seconds >= SHORT)

    def debug(self, text: str) -> None:
        """Log details."""
        if LOGGER.isEnabledFor(logging.DEBUG):
            with DRAWING, self._uncovered():
                LOGGER.debug("%s", text)

    def finish(self, text: str, seconds: float) -> None:
        """End the reports of a run that took so many seconds."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            with DRAWING:
                self._bar.close()
        self._write(text, seconds >= SHORT)

    def _write(self, text: str, is_printed: bool = True) -> None:
        """Write a line: to the logger where one is configured, else to standard error."""
        with DRAWING, self._uncovered():
            self._last_line = self._clock()
            if LOGGER.hasHandlers():
                LOGGER.info("%s", text)
            elif self._prints and is_printed:
                with suppress(OSError, ValueError):  # standard error may be closed meanwhile
                    print(f"secateur: {text}", file=sys.stderr, flush=True)

    def _uncovered(self) -> Any:
        return nullcontext() if self._bar is None else self._bar.hidden()


class ProgressBar:
    """A bar of tqdm that shows the outermost loop of a run; none is drawn for runs that end at once."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._make = bar_class()
        if is_notebook():  # a widget belongs to the cell whose thread makes it; it is shown by the first drawing
            self._bar = self._make(leave=False, total=1, delay=DELAY)

    def draw(self, run: ProgressState) -> None:
        """Draw the present state."""
        finished_count, total, seconds = run.counts()
        if self._bar is None:
            self._bar = self._make(leave=False, total=1, delay=DELAY, nrows=20, file=sys.stderr)
        bar, length = self._bar, total or 1
        if is_notebook() and bar.total != length:
            bar.reset(length)  # of the widget
        elif not is_notebook():
            bar.total, bar.ncols = length, terminal_columns()
        bar.n, bar.start_t = finished_count if total else 0, time.time() - seconds
        bar.bar_format = "{bar:16} [{elapsed}<{remaining}] {desc}" if total else "[{elapsed}] {desc}"
        bar.set_description_str(run.title(), refresh=False)
        bar.refresh()

    def hidden(self) -> Any:
        """Return a context in which the bar is cleared, so that lines can be written."""
        return nullcontext() if self._bar is None else self._make.external_write_mode(file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def bar_class() -> Any:
    """Return the class of tqdm for this terminal or notebook, without tqdm's own watching thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets a bar of characters
        from tqdm.auto import tqdm
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def terminal_columns() -> int:
    """Return the columns of the terminal of standard error; 80 if it does not say."""
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 81) - 1
    except (OSError, ValueError):
        return 80


def is_notebook() -> bool:
    """Return True in the kernel of a notebook."""
    return "ipykernel.zmqshell" in sys.modules or "pyodide" in sys.modules


def reporter_for(progress: bool | None) -> ProgressReporter:
    """Return the reporter for a setting of `progress`, in the first process of several."""
    if progress is False or process_rank() > 0:
        return ProgressReporter(has_bar=False, prints=False)
    has_bar = is_notebook() or (sys.stderr is not None and sys.stderr.isatty())
    prints = progress is True and not has_bar and sys.stderr is not None and not LOGGER.hasHandlers()
    return ProgressReporter(has_bar, prints)
