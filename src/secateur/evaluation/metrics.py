"""The dense and the pruned network side by side, measured on the same examples."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.allocation.plan import Plan
from secateur.allocation.quality_bounds import MetricChange
from secateur.data.batch import Batch
from secateur.errors import BudgetError
from secateur.evaluation.layer_times import LayerTime, layer_times, speed_note
from secateur.evaluation.losses import Loss, Reference, by_example, divergence, example_losses, main_output
from secateur.evaluation.onnx_times import onnx_layer_times
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME, export_onnx, repeatable_call, session_call
from secateur.graph.program import preserved, run_seeded
from secateur.importance.scores import Scores
from secateur.recovery.chain import RepairStep
from secateur.report.report import Latency, Metrics, Report
from secateur.utils.devices import synchronize_accelerator
from secateur.utils.time_budget import TimeBudget

ROUNDS = 15
SECONDS = 2.0
Times = tuple[list[list[float]], tuple[LayerTime, ...]]


def measure_networks(
    dense: nn.Module,
    small: nn.Module,
    plan: Plan,
    scores: Scores,
    batches: Sequence[Batch],
    loss: Loss | None,
    held_out: bool,
    steps: Sequence[RepairStep],
    drop: MetricChange | None,
    time: TimeBudget | None = None,
    runtime: str = EAGER,
) -> Report:
    """Run both networks on the same examples and time them in turn."""
    with preserved(dense), preserved(small):
        found = [example_measures(dense, small, batch, loss) for batch in batches]
    batch = batches[0]
    notes = list(plan.notes)
    try:
        times, spans = TIMERS[runtime](dense, small, batch)
    except BudgetError as failure:
        notes.append(f"times are those of torch's own kernels: {failure}")
        runtime = EAGER
        times, spans = TIMERS[runtime](dense, small, batch)
    means = torch.cat(found, 2).nanmean(2).tolist()
    size = batch.size or 1
    measured = [
        Metrics(*optional_means(row), cost, latency_of(size, spent))
        for row, cost, spent in zip(means, (plan.dense, plan.cost), times, strict=True)
    ]
    groups = {name: (plan.network[name].size, len(indices)) for name, indices in plan.kept.items()}
    settings = {"by": scores.by, "note": scores.note, "seed": scores.seed}
    settings["threads"] = torch.get_num_threads()
    settings["drop"] = None if drop is None else asdict(drop)
    settings["repairs"] = [asdict(step) for step in steps]
    settings["effective"] = None if plan.effective is None else asdict(plan.effective)
    settings["runtime"] = runtime
    settings["layers"] = [asdict(span) for span in spans]
    settings["speed"] = speed_note(dense, plan, spans, measured[0].latency.median / measured[1].latency.median)
    settings["notes"] = notes
    settings["left_out"] = [] if time is None else list(time.left_out)
    total = sum(part.shape[2] for part in found)
    return Report(
        title=plan.network.title,
        examples=total,
        held_out=held_out,
        dense=measured[0],
        pruned=measured[1],
        groups=groups,
        keep=dict(plan.keep),
        scores=scores,
        settings=settings,
        new_biases=plan.new_biases,
    )


def _times_in_torch(dense: nn.Module, small: nn.Module, batch: Batch) -> Times:
    with preserved(dense), preserved(small):
        times = interleaved_times([repeatable_call(model, batch) for model in (dense, small)])
    return times, layer_times(dense, small, batch)


def _times_in_onnxruntime(dense: nn.Module, small: nn.Module, batch: Batch) -> Times:
    with preserved(dense), preserved(small):
        exported = [export_onnx(model, batch) for model in (dense, small)]
    times = interleaved_times([session_call(model) for model in exported])
    return times, onnx_layer_times(exported[0], exported[1], [name for name, _ in dense.named_modules()])


TIMERS: Mapping[str, Callable[[nn.Module, nn.Module, Batch], Times]] = {
    EAGER: _times_in_torch,
    ONNXRUNTIME: _times_in_onnxruntime,
}
"""How both networks are timed in each runtime: milliseconds of each run, and of each module."""


def with_verdict(small: nn.Module, dense: nn.Module, batches: Sequence[Batch], loss: Loss | None) -> tuple[Tensor, ...]:
    """Each example's loss, whether its top class is right, and whether it is the dense network's. (examples,) each

    NaN where there is no such thing.
    """
    with preserved(dense), preserved(small):
        found = torch.cat([example_measures(dense, small, batch, loss)[1] for batch in batches], 1)
    return found[0], found[1], found[2]


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


def optional_means(row: list[float]) -> tuple[float, float | None, float | None, float]:
    loss, accuracy, agreement, distance = row
    return loss, None if np.isnan(accuracy) else accuracy, None if np.isnan(agreement) else agreement, distance


def example_measures(dense: nn.Module, small: nn.Module, batch: Batch, loss: Loss | None) -> Tensor:
    """(networks, [loss, accuracy, agreement, divergence], examples), NaN where there is no such thing."""
    expected = run_seeded(dense, batch)
    outputs = (expected, run_seeded(small, batch))
    examples = batch.size or 1
    rows = []
    for output in outputs:
        losses = example_losses(loss, output, Reference(batch.target, expected), examples)
        accuracy = _hits(output, batch.target, examples)
        agreement = _hits(output, _top(expected), examples)
        distance = by_example(divergence(output, expected), examples)
        rows.append(torch.stack([losses.double().cpu(), accuracy, agreement, distance.double().cpu()]))
    return torch.stack(rows)


def _top(output: Any) -> Tensor | None:
    scores = main_output(output)
    is_classes = scores.dim() == 2 or (not isinstance(output, Tensor) and hasattr(output, "logits"))
    return scores.argmax(-1) if is_classes else None


def _hits(output: Any, target: Any, examples: int) -> Tensor:
    """1 where the top class is the target, 0 elsewhere; NaN where outputs or targets are no classes."""
    nothing = torch.full((examples,), float("nan"), dtype=torch.float64)
    top = _top(output)
    if top is None or not isinstance(target, Tensor) or target.is_floating_point() or target.shape != top.shape:
        return nothing
    return (top == target.to(top.device)).double().view(examples, -1).mean(1).cpu()


def interleaved_times(calls: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Milliseconds of each call, in turn, for some rounds or seconds."""
    for call in calls:
        call()
    synchronize_accelerator()
    spent: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while len(spent[0]) < ROUNDS and (len(spent[0]) < 3 or time.perf_counter() - start < SECONDS):
        for call, times in zip(calls, spent, strict=True):
            before = time.perf_counter()
            call()
            synchronize_accelerator()
            times.append((time.perf_counter() - before) * 1e3)
    return spent


def latency_of(batch: int, times: Sequence[float]) -> Latency:
    lower, median, upper = np.percentile(times, [25, 50, 75]).tolist()
    return Latency(batch, median, lower, upper)
