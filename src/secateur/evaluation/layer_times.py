"""Where the time of a network goes, layer by layer, and why a cut network is not as much faster as it is smaller."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from secateur.coupling.plan import Plan
from secateur.data.batch import Batch
from secateur.graph.contexts import preserved
from secateur.graph.model_calls import cache_disabled
from secateur.utils.devices import runtime_clock, synchronize_accelerator

ROUNDS = 5
EXPECTED = 0.8  # the part of the speed that fewer MACs promise; a cut that gives less is explained
NOTABLE = 1.15
SHORT_MS = 0.1
FAULT_MS = 1e-3  # of one page fault, the least that was seen
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class LayerTime:
    """The least milliseconds of one module in a few runs, in the dense network and in the cut one: 0 if it is gone."""

    name: str
    dense: float
    pruned: float


def layer_times(dense: nn.Module, small: nn.Module, batch: Batch) -> tuple[LayerTime, ...]:
    """The time of each innermost module, and under "" what goes to operators outside of these; in their order.

    Args:
        dense, small: the networks; their hooks and states are as before afterwards.
        batch: what they run on.
    """
    before, after = (_times_of(model, batch) for model in (dense, small))
    return tuple(LayerTime(name, ms, after.get(name, 0.0)) for name, ms in before.items())


def _times_of(model: nn.Module, batch: Batch) -> dict[str, float]:
    batch = batch.with_copied_inputs()
    keywords = {**batch.kwargs, **cache_disabled(model, batch)}
    spent: defaultdict[str, list[float]] = defaultdict(list)
    clock = runtime_clock()
    with preserved(model), _timed(model, clock) as current:
        model(*batch.args, **keywords)
        spent.clear()
        for _ in range(ROUNDS):
            current.clear()
            start = clock()
            model(*batch.args, **keywords)
            synchronize_accelerator()
            total = (clock() - start) * 1e3
            for name, ms in current.items():
                spent[name].append(ms)
            spent[""].append(max(total - sum(current.values()), 0.0))
    return {name: float(np.min(times)) for name, times in spent.items()}


@contextmanager
def _timed(model: nn.Module, clock: Callable[[], float]) -> Iterator[defaultdict[str, float]]:
    """Adds up the milliseconds of each innermost module in what is yielded, as long as this lasts."""
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
    """Why a cut network is not as much faster as it has fewer MACs, in a line; empty where it is.

    Args:
        dense: the dense network.
        plan: by which it was cut.
        times: of its layers.
        ratio: how many times as fast it is.
        faults: the pages of memory that it takes anew in each run.
    """
    promised = plan.dense.macs / max(plan.cost.macs, 1)
    if promised <= 1 or ratio >= EXPECTED * promised:
        return ""
    reasons = []
    effective = plan.effective
    if effective is not None and effective.step > 1:
        share = effective.left / max(effective.dense, 1)
        if share > NOTABLE / promised:
            reasons.append(
                f"kernels work on {effective.step} channels at once, by which {share:.0%} of the MACs are left"
            )
    kinds = {name: isinstance(module, LAYERS) for name, module in dense.named_modules()}
    total = sum(each.pruned for each in times)
    others = sum(each.pruned for each in times if not kinds.get(each.name, False))
    if total > 0 and others > 0.25 * total:
        reasons.append(f"{others / total:.0%} of its time goes to operators without MACs")
    if faults * FAULT_MS > 0.1 * total > 0:
        reasons.append(
            f"its memory is taken from the system anew in each run, in {faults:,} page faults (with glibc, "
            "MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ of 1000000000 in the environment keep it)"
        )
    running = [each.pruned for each in times if each.name and each.pruned > 0]
    if running and float(np.median(running)) < SHORT_MS:
        reasons.append("its layers are so short that calling them takes much of their time, less so for larger batches")
    reasons = reasons or ["its layers are bound by memory, or by shapes that this machine's kernels are slow for"]
    return f"{ratio:.2f} times as fast with 1/{promised:.2f} of the MACs: {'; '.join(reasons)}"
