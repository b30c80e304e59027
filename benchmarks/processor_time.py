"""Processor time of calls."""

import time
from collections.abc import Callable


def processor_seconds(function: Callable[[], object]) -> float:
    """Call a function, and return the processor seconds of the process that it took."""
    start = time.process_time()
    function()
    return time.process_time() - start
