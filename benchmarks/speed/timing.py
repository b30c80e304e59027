"""The speed of a cut network beside the dense one: both run in turn, in two runtimes, with confidence intervals."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME, export_onnx, repeatable_call, session_call
from secateur.utils.devices import runtime_clock

BATCHES, RUNTIMES = (1, 32), (EAGER, ONNXRUNTIME)
ROUNDS, LEAST_ROUNDS, LEAST_SECONDS, MOST_SECONDS = 101, 9, 0.01, 12.0
DRAWS = 1000


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt
KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, as MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ in the environment do.

    Memory that goes back to the system is taken anew in the next run, by page faults that take up to three tenths of
    the time of a small network whatever it computes, and more or less of it from process to process.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for threshold in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            library.mallopt(threshold, KEPT_BYTES)


@dataclass(frozen=True)
class Speed:
    """The speed of a cut network beside the dense one.

    Args:
        runtime: the runtime.
        batch: the number of images in a batch.
        threads: the number of threads.
        dense_ms: the median of the milliseconds of the dense network for a batch.
        cut_ms: the same of the cut network.
        ratio: the speed-up, the median over rounds in which both ran.
        low: the lower end of its 95 % interval, by the bootstrap over rounds.
        high: the upper end.
    """

    runtime: str
    batch: int
    threads: int
    dense_ms: float
    cut_ms: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class ClockSettings:
    """The runs that are timed.

    Args:
        runtimes: the runtimes.
        threads: the numbers of threads.
        seconds: for each of the measurements at most.
    """

    runtimes: Sequence[str] = RUNTIMES
    threads: Sequence[int] = (1, 2)
    seconds: float = MOST_SECONDS


def measure_speeds(
    dense: nn.Module, cut: nn.Module, images: Tensor, settings: ClockSettings
) -> Iterator[dict[str, Any]]:
    """Yield the speed for each runtime, batch size and number of threads.

    On one thread it is of processor time, on several of elapsed time, which other work on the machine disturbs.

    Args:
        dense: the dense network, in evaluation mode.
        cut: the cut network, in evaluation mode.
        images: at least as many as the largest batch.
        settings: the runtimes, numbers of threads, and seconds.
    """
    before = torch.get_num_threads()
    for runtime in settings.runtimes:
        for size in BATCHES:
            batch = Batch((images[:size].contiguous(memory_format=torch.channels_last),), {})
            new_calls = [_call_factory(runtime, model, batch) for model in (dense, cut)]
            for count in settings.threads:
                torch.set_num_threads(count)
                with torch.inference_mode():
                    yield asdict(_speed(runtime, size, count, [new_call() for new_call in new_calls], settings.seconds))
    torch.set_num_threads(before)


def _call_factory(runtime: str, model: nn.Module, batch: Batch) -> Callable[[], Callable[[], Any]]:
    """Return a function that makes a call of the model on torch's current number of threads; it is exported once."""
    if runtime == EAGER:
        return lambda: repeatable_call(model, batch)
    exported = export_onnx(model, batch)
    return lambda: session_call(exported)


def _speed(runtime: str, batch: int, threads: int, calls: list[Callable[[], Any]], seconds: float) -> Speed:
    clock = runtime_clock()
    milliseconds: list[list[float]] = [[], []]
    for call in calls:
        call()
    repeats = [max(1, round(LEAST_SECONDS / max(_seconds_of_call(call, 3, clock), 1e-6))) for call in calls]
    start = time.perf_counter()
    while len(milliseconds[0]) < ROUNDS and (
        len(milliseconds[0]) < LEAST_ROUNDS or time.perf_counter() - start < seconds
    ):
        for call, repeat, times in zip(calls, repeats, milliseconds, strict=True):
            times.append(_seconds_of_call(call, repeat, clock) * 1e3)
    ratios = np.divide(*milliseconds)
    draws = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.percentile(np.median(draws, 1), [2.5, 97.5]).tolist()
    dense_ms, cut_ms = (statistics.median(times) for times in milliseconds)
    return Speed(runtime, batch, threads, dense_ms, cut_ms, float(np.median(ratios)), low, high)


def _seconds_of_call(call: Callable[[], Any], repeat: int, clock: Callable[[], float]) -> float:
    """Return the mean seconds of a call."""
    start = clock()
    for _ in range(repeat):
        call()
    return (clock() - start) / repeat
