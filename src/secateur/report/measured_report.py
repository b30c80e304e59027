"""Build the report of a cut: both networks measured on the same examples and timed in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import nn

from secateur.coupling.plan import Plan
from secateur.data.batch import Batch
from secateur.errors import BudgetError
from secateur.evaluation.evaluate import evaluate
from secateur.evaluation.layer_times import LayerTime, layer_times, speed_note
from secateur.evaluation.losses import Loss
from secateur.evaluation.onnx_times import onnx_layer_times
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME, export_onnx, repeatable_call, session_call
from secateur.evaluation.timing import interleaved_times, latency_of
from secateur.graph.contexts import preserved
from secateur.importance.scores import Scores
from secateur.recovery.chain import RepairStep
from secateur.report.report import Report
from secateur.utils.devices import page_faults
from secateur.utils.time_budget import TimeBudget

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
    time: TimeBudget | None = None,
    runtime: str = EAGER,
) -> Report:
    """Run both networks on the same examples and time them in turn."""
    measures = evaluate(dense, small, batches, loss)
    batch = batches[0]
    notes = list(plan.notes)
    try:
        times, spans = TIMERS[runtime](dense, small, batch)
    except BudgetError as failure:
        notes.append(f"times are those of torch's own kernels: {failure}")
        runtime = EAGER
        times, spans = TIMERS[runtime](dense, small, batch)
    size = batch.size or 1
    measured = [
        network.metrics(cost, latency_of(size, spent))
        for network, cost, spent in zip(measures, (plan.dense, plan.cost), times, strict=True)
    ]
    groups = {name: (plan.network[name].size, len(indices)) for name, indices in plan.kept.items()}
    settings = {"by": scores.by, "note": scores.note, "seed": scores.seed}
    settings["threads"] = torch.get_num_threads()
    settings["drop"] = None if plan.change is None else asdict(plan.change)
    settings["repairs"] = [asdict(step) for step in steps]
    settings["effective"] = None if plan.effective is None else asdict(plan.effective)
    settings["runtime"] = runtime
    settings["layers"] = [asdict(span) for span in spans]
    ratio = measured[0].latency.median / measured[1].latency.median
    faults = _page_faults(small, batch) if runtime == EAGER else 0
    settings["speed"] = speed_note(dense, plan, spans, ratio, faults)
    settings["notes"] = notes
    settings["left_out"] = [] if time is None else list(time.left_out)
    return Report(
        title=plan.network.title,
        examples=len(measures[0].losses),
        held_out=held_out,
        dense=measured[0],
        pruned=measured[1],
        groups=groups,
        keep=dict(plan.keep),
        scores=scores,
        settings=settings,
        new_biases=plan.new_biases,
    )


def _page_faults(small: nn.Module, batch: Batch) -> int:
    with preserved(small):
        return page_faults(repeatable_call(small, batch))


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
