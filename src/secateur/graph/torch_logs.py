"""torch's log records of exports."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch


@contextmanager
def torch_logs_silenced() -> Iterator[None]:
    """Silence torch's warnings, log records and printed graphs within a context, unless `TORCH_LOGS` is set."""
    without_print: Any = patch("torch.export._trace.print", lambda *args, **kwargs: None, create=True)
    is_requested_by_user = bool(os.environ.get("TORCH_LOGS"))
    with warnings.catch_warnings(), torch_logs_dropped(), nullcontext() if is_requested_by_user else without_print:
        warnings.simplefilter("ignore")
        yield


@contextmanager
def torch_logs_dropped() -> Iterator[None]:
    """Drop this thread's records of torch's loggers, except those whose level `TORCH_LOGS` or the user lowered."""
    thread = threading.get_ident()

    def is_requested(record: logging.LogRecord) -> bool:
        of_torch = record.name == "torch" or record.name.startswith("torch.")
        return not of_torch or record.thread != thread or _is_asked_for(record.name)

    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(is_requested)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_requested)


def _is_asked_for(name: str) -> bool:
    return logging.getLogger(name).getEffectiveLevel() < logging.WARNING


def _handlers() -> list[logging.Handler]:
    """Return the handlers that receive records of torch's loggers."""
    names = [name for name in logging.root.manager.loggerDict if name == "torch" or name.startswith("torch.")]
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in names)]
    last_resort = [] if logging.lastResort is None else [logging.lastResort]
    return list(dict.fromkeys([*(handler for logger in loggers for handler in logger.handlers), *last_resort]))
