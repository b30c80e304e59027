"""Times of the modules of a network, and the reasons why a cut network is less fast than it is small."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from secateur.coupling.plan import Plan
from secateur.data.batch import Batch
from secateur.evaluation.timing import SECONDS
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.model_calls import cache_disabled
from secateur.utils.default_device import on_callers_device
from secateur.utils.devices import runtime_clock, synchronize_accelerator

ROUNDS = 5
EXPECTED = 0.8  # the part of the speed that fewer MACs promise; a cut that gives less is explained
NOTABLE = 1.15
SHORT_MS = 0.1
FAULT_MS = 1e-3  # of one page fault, the least that was seen
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class LayerTime:
    """The least milliseconds of one module in a few runs.

    Args:
        name: the module's path.
        dense: in the dense network.
        pruned: in the cut one; 0 if it was removed.
    """

    name: str
    dense: float
    pruned: float


def layer_times(dense: nn.Module, small: nn.Module, batch: Batch, writes: bool = True) -> tuple[LayerTime, ...]:
    """Measure the time of each innermost module, and under "" that of operators outside of these; in their order.

    Each network runs once before, and then five times, or for 2 seconds; networks that take longer run once.

    Args:
        dense: the dense network; its hooks and state are as before afterwards.
        small: the smaller network; the same.
        batch: the batch that they run on.
        writes: whether the networks' code may write to their parameters, which are copied for the time being then.
    """
    before, after = (_torch_times(model, batch, writes) for model in (dense, small))
    return tuple(LayerTime(name, ms, after.get(name, 0.0)) for name, ms in before.items())


def _torch_times(model: nn.Module, batch: Batch, writes: bool) -> dict[str, float]:
    batch = batch.with_copied_inputs()
    keywords = {**batch.kwargs, **cache_disabled(model, batch)}
    times: defaultdict[str, list[float]] = defaultdict(list)
    clock, forward = runtime_clock(), on_callers_device(model)

    def measure() -> None:
        current.clear()
        start = clock()
        forward(*batch.args, **keywords)
        synchronize_accelerator()
        total = (clock() - start) * 1e3
        for name, ms in current.items():
            times[name].append(ms)
        times[""].append(max(total - sum(current.values()), 0.0))

    with isolated_evaluation(model, writes), _module_times(model, clock) as current:
        begin = time.perf_counter()
        measure()
        if time.perf_counter() - begin < SECONDS:
            begin = time.perf_counter()
            times.clear()
        while len(times[""]) < ROUNDS and (not times[""] or time.perf_counter() - begin < SECONDS):
            measure()
    return {name: float(np.min(module_times)) for name, module_times in times.items()}


@contextmanager
def _module_times(model: nn.Module, clock: Callable[[], float]) -> Iterator[defaultdict[str, float]]:
    """Yield the milliseconds of each innermost module, which are summed up in this context."""
    current: defaultdict[str, float] = defaultdict(float)
    starts: dict[str, float] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def begin(*_: Any) -> None:
            synchronize_accelerator()
            starts[name] = clock()

        def end(*_: Any) -> None:
            synchronize_accelerator()
            current[name] += (clock() - starts[name]) * 1e3

        handles.append(module.register_forward_pre_hook(begin))
        handles.append(module.register_forward_hook(end))

    try:
        for name, module in model.named_modules():
            if name and not any(module.children()):
                watch(name, module)
        yield current
    finally:
        for handle in handles:
            handle.remove()


def speed_note(dense: nn.Module, plan: Plan, times: tuple[LayerTime, ...], ratio: float, faults: int = 0) -> str:
    """Explain in a line why a cut network is less fast than it has fewer MACs; empty where it is as fast.

    Args:
        dense: the dense network.
        plan: by which it was cut.
        times: of its layers.
        ratio: how many times as fast it is.
        faults: the pages of memory that it takes anew in each run.
    """
    macs_ratio = plan.dense.macs / max(plan.cost.macs, 1)
    if macs_ratio <= 1 or ratio >= EXPECTED * macs_ratio:
        return ""
    candidates = (_step_reason(plan, macs_ratio), _operator_reason(dense, times), _memory_reason(times, faults),
                  _short_reason(times))  # fmt: skip
    reasons = [reason for reason in candidates if reason]
    reasons = reasons or ["its layers are bound by memory, or by shapes that this machine's kernels are slow for"]
    return f"{ratio:.2f} times as fast with {1 / macs_ratio:.0%} of the MACs: {'; '.join(reasons)}"


def _step_reason(plan: Plan, macs_ratio: float) -> str:
    effective = plan.effective
    if effective is None or effective.step == 1:
        return ""
    share = effective.kept / max(effective.dense, 1)
    if share <= NOTABLE / macs_ratio:
        return ""
    return (
        f"kernels work on {effective.step} channels at once, and counted in such steps {share:.0%} of the MACs are left"
    )


def _operator_reason(dense: nn.Module, times: tuple[LayerTime, ...]) -> str:
    has_macs = {name: isinstance(module, LAYERS) for name, module in dense.named_modules()}
    total = sum(time.pruned for time in times)
    other_seconds = sum(time.pruned for time in times if not has_macs.get(time.name, False))
    if total <= 0 or other_seconds <= 0.25 * total:
        return ""
    return f"{other_seconds / total:.0%} of its time goes to operators without MACs"


def _memory_reason(times: tuple[LayerTime, ...], faults: int) -> str:
    if not faults * FAULT_MS > 0.1 * sum(time.pruned for time in times) > 0:
        return ""
    return (
        f"its memory is taken from the system anew in each run, in {faults:,} page faults (with glibc, "
        "MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ of 1000000000 in the environment keep it)"
    )


def _short_reason(times: tuple[LayerTime, ...]) -> str:
    running = [time.pruned for time in times if time.name and time.pruned > 0]
    if not running or float(np.median(running)) >= SHORT_MS:
        return ""
    return "calling its layers takes much of their time, and less of it for larger batches"
