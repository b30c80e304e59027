"""Times of calls and of models: one call alone, or several in turn."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.data.batch import Batch
from secateur.evaluation.generation import GenerationPhase
from secateur.evaluation.records import Latency
from secateur.evaluation.runtimes import EAGER, Call, repeatable_call
from secateur.graph.contexts import isolated_evaluation
from secateur.utils.devices import runtime_clock, synchronize_accelerator

ROUNDS = 15
FEWEST_ROUNDS = 3
SECONDS = 2.0
SERIES = 3
SERIES_SECONDS = 2e-3
MOST_RUNS = 20


class Stopwatch:
    """A clock for a dense network and for smaller ones, which run in turn with it.

    Args:
        dense: the dense network.
        batch: the batch that the networks run on.
        runtime: the runtime, as in `secateur.evaluation.runtimes`.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
        phase: a phase of text generation, which the networks run in place of the batch; None for the batch.
    """

    def __init__(
        self,
        dense: nn.Module,
        batch: Batch,
        runtime: str = EAGER,
        writes: bool = True,
        phase: GenerationPhase | None = None,
    ) -> None:
        self.dense, self.batch, self.runtime, self.writes, self.phase = dense, batch, runtime, writes, phase

    def _call(self, model: nn.Module) -> Call:
        if self.phase is not None:
            return self.phase.call(model)
        return repeatable_call(model, self.batch, self.runtime)

    @cached_property
    def _dense_call(self) -> Call:
        with isolated_evaluation(self.dense, self.writes):
            return self._call(self.dense)

    def time_in_turn(self, small: nn.Module) -> list[list[float]]:
        """Measure the milliseconds of several runs of the dense network and of a smaller one, run in turn."""
        with isolated_evaluation(self.dense, self.writes), isolated_evaluation(small, self.writes):
            return interleaved_times([self._dense_call, self._call(small)])

    def dense_ms(self) -> list[float]:
        """Measure the milliseconds that the dense network takes for the batch, in several runs."""
        with isolated_evaluation(self.dense, self.writes):
            return interleaved_times([self._dense_call])[0]

    def time_ratio(self, small: nn.Module) -> float:
        """Measure the time of a smaller network as a fraction of the dense network's, run in turn."""
        times = self.time_in_turn(small)
        return float(np.median(times[1]) / np.median(times[0]))


def interleaved_times(calls: Sequence[Callable[[], Any]], rounds: int = ROUNDS) -> list[list[float]]:
    """Measure the milliseconds of each call, in turn, after one run of each.

    The first run of each counts where all of them take more than 2 seconds: what is slow at first is little then.

    Args:
        calls: the calls.
        rounds: how often each runs; less often, but at least 3 times, where that takes more than 2 seconds.

    Returns:
        The milliseconds of each run of each call.
    """
    clock = runtime_clock()

    def milliseconds(call: Callable[[], Any]) -> float:
        before = clock()
        call()
        synchronize_accelerator()
        return (clock() - before) * 1e3

    start = time.perf_counter()
    times_by_round = [[milliseconds(call) for call in calls]]
    if time.perf_counter() - start < SECONDS:
        start, times_by_round = time.perf_counter(), []
    while len(times_by_round) < rounds and (
        len(times_by_round) < FEWEST_ROUNDS or time.perf_counter() - start < SECONDS
    ):
        times_by_round.append([milliseconds(call) for call in calls])
    return [list(of_call) for of_call in zip(*times_by_round, strict=True)]


def call_seconds(call: Callable[[], Any]) -> float:
    """Measure the seconds of a call: the least mean of a few series of runs, on as many threads as torch uses now."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads(), timer=runtime_clock())
    first_seconds = timer.timeit(1).mean
    count = max(1, min(MOST_RUNS, round(SERIES_SECONDS / max(first_seconds, 1e-7))))
    return float(min(timer.timeit(count).mean for _ in range(SERIES)))


def sweep_seconds(calls: Sequence[Callable[[], Any]], whole: Callable[[], Any], total: float) -> float:
    """Measure the seconds of several calls one after another, as in a network.

    A call that is repeated finds its weights in the processor's caches. Here, they are read from memory again if the
    weights of all calls together do not fit into the caches. How long that takes depends on other work on the machine,
    so that the calls run in turn with the network, whose time was measured before.

    Args:
        calls: the calls.
        whole: the call of the network that contains them.
        total: the measured seconds of this call.
    """

    def sweep() -> None:
        for call in calls:
            call()

    swept, run = interleaved_times([sweep, whole])
    return total * float(np.median(swept) / np.median(run))


def latency_of(batch_size: int, times: Sequence[float]) -> Latency:
    """Summarize the milliseconds of several runs.

    Args:
        batch_size: examples in the batch.
        times: milliseconds of each run.
    """
    lower, median, upper = np.percentile(times, [25, 50, 75]).tolist()
    return Latency(batch_size, median, lower, upper)
