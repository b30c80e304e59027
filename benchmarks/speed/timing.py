"""How many times as fast a cut network is: both run in turn, eagerly and by onnxruntime, with confidence intervals."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

BATCHES, THREADS, RUNTIMES = (1, 32), (1, 2), ("eager", "onnxruntime")
ROUNDS, LEAST_SECONDS, MOST_SECONDS = 31, 0.02, 12.0
DRAWS = 1000


@dataclass(frozen=True)
class Speed:
    """The speed of a cut network beside the dense one.

    Args:
        runtime, batch, threads: how they were run.
        dense_ms, cut_ms: medians of the milliseconds for a batch.
        ratio: how many times as fast: the median over rounds in which both ran.
        low, high: the ends of its 95 % interval, by the bootstrap over rounds.
    """

    runtime: str
    batch: int
    threads: int
    dense_ms: float
    cut_ms: float
    ratio: float
    low: float
    high: float


def speeds(dense: nn.Module, cut: nn.Module, images: Tensor, seconds: float = MOST_SECONDS) -> Iterator[dict[str, Any]]:
    """The speed for each runtime, batch size and number of threads.

    Args:
        dense, cut: the networks, in evaluation mode.
        images: at least as many as the largest batch.
        seconds: for each of the measurements at most.
    """
    before = torch.get_num_threads()
    for runtime in RUNTIMES:
        for batch in BATCHES:
            x = images[:batch].contiguous(memory_format=torch.channels_last)
            runners = [RUNNERS[runtime](model, x) for model in (dense, cut)]
            for threads in THREADS:
                yield asdict(_speed(runtime, batch, threads, [runner(threads) for runner in runners], seconds))
    torch.set_num_threads(before)


def _speed(runtime: str, batch: int, threads: int, calls: list[Callable[[], Any]], seconds: float) -> Speed:
    timers = [Timer("call()", globals={"call": call}, num_threads=threads) for call in calls]
    repeats = [max(1, round(LEAST_SECONDS / max(timer.timeit(3).mean, 1e-6))) for timer in timers]
    spent: list[list[float]] = [[], []]
    start = time.perf_counter()
    while len(spent[0]) < ROUNDS and (len(spent[0]) < 5 or time.perf_counter() - start < seconds):
        for timer, repeat, times in zip(timers, repeats, spent, strict=True):
            times.append(timer.timeit(repeat).mean * 1e3)
    ratios = np.divide(*spent)
    draws = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.percentile(np.median(draws, 1), [2.5, 97.5]).tolist()
    dense_ms, cut_ms = (statistics.median(times) for times in spent)
    return Speed(runtime, batch, threads, dense_ms, cut_ms, float(np.median(ratios)), low, high)


def _eager(model: nn.Module, x: Tensor) -> Callable[[int], Callable[[], Any]]:
    def call() -> Any:
        with torch.inference_mode():
            return model(x)

    return lambda threads: call


def _onnxruntime(model: nn.Module, x: Tensor) -> Callable[[int], Callable[[], Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        torch.onnx.export(plain, (x.contiguous(),), path, dynamo=True, external_data=False, verbose=False)
        program = Path(path).read_bytes()

    def runner(threads: int) -> Callable[[], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        inputs = {session.get_inputs()[0].name: x.contiguous().numpy()}
        return lambda: session.run(None, inputs)

    return runner


RUNNERS: dict[str, Callable[[nn.Module, Tensor], Callable[[int], Callable[[], Any]]]] = {
    "eager": _eager,
    "onnxruntime": _onnxruntime,
}
