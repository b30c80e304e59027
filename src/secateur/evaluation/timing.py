"""Timing of models: calls timed in turn, and the share of the time that is left."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from secateur.data.batch import Batch
from secateur.evaluation.records import Latency
from secateur.evaluation.runtimes import EAGER, repeatable_call
from secateur.graph.contexts import preserved
from secateur.utils.devices import runtime_clock, synchronize_accelerator

ROUNDS = 15


SECONDS = 2.0


class Stopwatch:
    """Times a dense network, and smaller ones in turn with it.

    Args:
        dense: the dense network.
        batch: what the networks run on.
        runtime: in which they run, as in `secateur.evaluation.runtimes`.
    """

    def __init__(self, dense: nn.Module, batch: Batch, runtime: str = EAGER) -> None:
        self.dense, self.batch, self.runtime = dense, batch, runtime

    @cached_property
    def _dense_call(self) -> Callable[[], Any]:
        with preserved(self.dense):
            return repeatable_call(self.dense, self.batch, self.runtime)

    def dense_ms(self) -> list[float]:
        """The milliseconds that the dense network takes for the batch, of several runs."""
        with preserved(self.dense):
            return interleaved_times([self._dense_call])[0]

    def left(self, small: nn.Module) -> float:
        """The part of the dense network's time that a smaller one takes for the batch, timed in turn."""
        with preserved(self.dense), preserved(small):
            times = interleaved_times([self._dense_call, repeatable_call(small, self.batch, self.runtime)])
        return float(np.median(times[1]) / np.median(times[0]))


def interleaved_times(calls: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Milliseconds of each call, in turn, for some rounds or seconds."""
    for call in calls:
        call()
    synchronize_accelerator()
    spent: list[list[float]] = [[] for _ in calls]
    start, clock = time.perf_counter(), runtime_clock()
    while len(spent[0]) < ROUNDS and (len(spent[0]) < 3 or time.perf_counter() - start < SECONDS):
        for call, times in zip(calls, spent, strict=True):
            before = clock()
            call()
            synchronize_accelerator()
            times.append((clock() - before) * 1e3)
    return spent


def latency_of(batch: int, times: Sequence[float]) -> Latency:
    lower, median, upper = np.percentile(times, [25, 50, 75]).tolist()
    return Latency(batch, median, lower, upper)
