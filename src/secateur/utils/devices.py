"""Accelerators: synchronization, clocks, and reproducible arithmetic."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]


def synchronize_accelerator() -> None:
    """Wait until all kernels that were launched on the accelerator have finished; do nothing on a CPU."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


RESOLUTION = 1e-5  # seconds


def runtime_clock() -> Callable[[], float]:
    """Return the clock by which runs of a network are timed, in seconds.

    On one thread of a processor it is the thread's processor time, which excludes other work on the machine; on
    several threads, and where processor time is too coarse, elapsed time. With an accelerator it waits for the kernels
    that were launched, then reads the elapsed time.

    Examples:
        >>> clock = runtime_clock()
        >>> clock() <= clock()
        True
    """
    is_fine = time.get_clock_info("thread_time").resolution <= RESOLUTION
    if torch.accelerator.is_available():
        return _synchronized_time
    return time.thread_time if torch.get_num_threads() == 1 and is_fine else time.perf_counter


def _synchronized_time() -> float:
    torch.accelerator.synchronize()
    return time.perf_counter()


def page_faults(call: Callable[[], Any]) -> int:
    """Count the memory pages that this thread newly requests from the system in one run of a call that has run before.

    Returns:
        The number, 0 where the system does not count them for a thread.

    Examples:
        >>> page_faults(lambda: None) < 10
        True
    """
    who = getattr(resource, "RUSAGE_THREAD", None)
    if resource is None or who is None:
        return 0
    call()
    faults_before = resource.getrusage(who).ru_minflt
    call()
    return int(resource.getrusage(who).ru_minflt - faults_before)


@contextmanager
def comparable_arithmetic() -> Iterator[None]:
    """Compute float32 products in float32, and on CUDA by deterministic algorithms; restore the settings on leaving.

    NVIDIA devices take convolutions in TF32 by default, whose ten bits differ by more than float noise between two
    layers of other widths, and entries that are written twice get either value.

    Examples:
        >>> torch.backends.cudnn.conv.fp32_precision = "tf32"
        >>> with comparable_arithmetic():
        ...     torch.backends.cudnn.conv.fp32_precision
        'ieee'
        >>> torch.backends.cudnn.conv.fp32_precision
        'tf32'
    """
    with ExitStack() as stack:
        for kernels in _kernels_in_float32():
            stack.callback(setattr, kernels, "fp32_precision", kernels.fp32_precision)
            kernels.fp32_precision = "ieee"
        if torch.cuda.is_initialized():
            stack.enter_context(_deterministic_algorithms())
        yield


def _kernels_in_float32() -> tuple[Any, ...]:
    """Return torch's settings that allow float32 products in fewer bits."""
    nvidia: Any = torch.backends.cudnn
    intel: Any = torch.backends.mkldnn
    return torch.backends.cuda.matmul, nvidia.conv, nvidia.rnn, intel.matmul, intel.conv, intel.rnn


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """Use deterministic algorithms where an operator has one."""
    old_settings = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(old_settings[0], warn_only=old_settings[1])
