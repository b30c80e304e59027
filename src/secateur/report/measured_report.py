"""Build the report of a cut: both networks measured on the same examples and timed in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from secateur.coupling.effective_macs import EffectiveMacs
from secateur.coupling.plan import Plan
from secateur.coupling.summary import example_text
from secateur.data.batch import Batch
from secateur.errors import BudgetError
from secateur.evaluation.evaluate import evaluate
from secateur.evaluation.layer_times import LayerTime, layer_times, speed_note
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric, metric_name
from secateur.evaluation.onnx_times import onnx_layer_times
from secateur.evaluation.report_split import ReportExamples
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME, export_onnx, repeatable_call, session_call
from secateur.evaluation.timing import FEWEST_ROUNDS, ROUNDS, interleaved_times, latency_of
from secateur.graph.contexts import isolated_evaluation
from secateur.importance.scores import Scores
from secateur.recovery.repair_step import RepairStep
from secateur.report.generation_times import generation_setting
from secateur.report.predicted_words import token_count, word_reader
from secateur.report.report import Report
from secateur.utils.collected_warnings import warning_lines
from secateur.utils.devices import page_faults
from secateur.utils.distributed import broadcast_if_shared
from secateur.utils.time_budget import TimeBudget

Times = tuple[list[list[float]], tuple[LayerTime, ...]]


def measure_networks(
    dense: nn.Module,
    small: nn.Module,
    plan: Plan,
    scores: Scores,
    examples: ReportExamples,
    loss: Loss | None,
    metric: Metric | None = None,
    *,
    steps: Sequence[RepairStep],
    time: TimeBudget | None = None,
    is_late: bool = False,
    runtime: str = EAGER,
    context_length: int | None = None,
) -> Report:
    """Measure both networks on the same examples, and time them in turn.

    Args:
        dense: the dense network.
        small: the network that was cut.
        plan: the plan of the cut.
        scores: the scores of the units.
        examples: the examples to measure on, and the batch to time.
        loss: the loss of a user, or None for the default one.
        metric: the metric of a user, or None.
        steps: the outcomes of the repairs.
        time: the limit of time, if any.
        is_late: whether times are measured in a few runs alone, and those of layers are left out.
        runtime: the runtime for the times.
        context_length: the number of tokens before the ones that are generated, where the budget is in their time.
    """
    program = plan.network.program
    words_of = word_reader(dense, program, examples.measured)
    evaluations = evaluate(dense, small, examples.measured, loss, metric, program.writes, words_of)
    measure_times = partial(_all_times, dense, small, plan, examples.timed, runtime, context_length, is_late)
    times = broadcast_if_shared(measure_times, "times of both networks")
    dense_metrics, small_metrics = (
        evaluation.metrics(cost, latency_of(examples.timed.size or 1, seconds))
        for evaluation, cost, seconds in zip(evaluations, (plan.dense, plan.cost), times.seconds, strict=True)
    )
    settings = {
        **_settings_of_run(plan, scores, steps),
        **_settings_of_times(dense, plan, times, dense_metrics.latency.median / small_metrics.latency.median),
        "notes": [*examples.notes, *plan.notes, *times.notes],
        "warnings": list(warning_lines()),
        "metric": "" if metric is None else metric_name(metric),
        "left_out": [] if time is None else list(time.left_out),
        "tokens": 0 if words_of is None else token_count(examples.timed),
    }
    return Report(
        title=plan.network.title, examples=len(evaluations[0].losses), held_out=examples.held_out, dense=dense_metrics,
        pruned=small_metrics, keep=dict(plan.keep), scores=scores, kept=plan.kept, settings=settings,
        groups={name: (plan.network[name].size, len(indices)) for name, indices in plan.kept.items()},
        kinds={name: plan.network[name].kind for name in plan.kept}, new_biases=plan.new_biases,
        changes=evaluations[1].changes_from(evaluations[0]),
    )  # fmt: skip


def _all_times(
    dense: nn.Module,
    small: nn.Module,
    plan: Plan,
    batch: Batch,
    runtime: str,
    context_length: int | None,
    is_late: bool = False,
) -> "TimedNetworks":
    """Return the times of two networks, the page faults of the smaller one, and their times of text generation."""
    writes = plan.network.program.writes
    times = _timed_in_runtime(dense, small, batch, runtime, writes, is_late)
    faults = _page_faults(small, batch, writes) if times.runtime == EAGER else 0
    return replace(times, faults=faults, generation=generation_setting(dense, small, plan, batch, context_length))


def _settings_of_times(dense: nn.Module, plan: Plan, times: "TimedNetworks", speedup: float) -> dict[str, Any]:
    """Return the settings of a report that follow from measured times."""
    return {
        "runtime": times.runtime,
        "generation": times.generation,
        "layers": [asdict(layer) for layer in times.layers],
        "speed": speed_note(dense, plan, times.layers, speedup, times.faults),
    }


def _settings_of_run(plan: Plan, scores: Scores, steps: Sequence[RepairStep]) -> dict[str, Any]:
    """Return the settings of a report that the scores, the plan and the repairs say."""
    return {
        "by": scores.by,
        "note": scores.note,
        "seed": scores.seed,
        "threads": torch.get_num_threads(),
        "drop": None if plan.change is None else asdict(plan.change),
        "repairs": [asdict(step) for step in steps],
        "effective": None if plan.effective is None else _effective_setting(plan.effective),
        "inputs": example_text(plan.network),
    }


def _effective_setting(effective: EffectiveMacs) -> dict[str, int]:
    """Return the fields under the names that they have in saved reports."""
    return dict(zip(("step", "dense", "kept"), astuple(effective), strict=True))


@dataclass(frozen=True)
class TimedNetworks:
    """The times of two networks on one batch.

    Args:
        runtime: the runtime that they were timed in.
        seconds: the times of repeated runs, for each network.
        layers: the times of each module in both networks.
        notes: the reason if this is not the requested runtime.
        faults: the page faults of one run of the smaller network in torch.
        generation: the times of text generation, as reports have them; None for other models.
    """

    runtime: str
    seconds: list[list[float]]
    layers: tuple[LayerTime, ...]
    notes: tuple[str, ...] = ()
    faults: int = 0
    generation: dict[str, Any] | None = None


def _timed_in_runtime(
    dense: nn.Module, small: nn.Module, batch: Batch, runtime: str, writes: bool, is_late: bool = False
) -> TimedNetworks:
    """Time two networks in a runtime, or in torch where the runtime cannot run them; in few runs if it is late."""
    try:
        return TimedNetworks(runtime, *TIMERS[runtime](dense, small, batch, writes, is_late))
    except BudgetError as failure:
        note = f"times are those of torch's own kernels: {failure}"
        return TimedNetworks(EAGER, *TIMERS[EAGER](dense, small, batch, writes, is_late), (note,))


def _page_faults(small: nn.Module, batch: Batch, writes: bool) -> int:
    with isolated_evaluation(small, writes):
        return page_faults(repeatable_call(small, batch))


def _times_in_torch(dense: nn.Module, small: nn.Module, batch: Batch, writes: bool, is_late: bool) -> Times:
    with isolated_evaluation(dense, writes), isolated_evaluation(small, writes):
        times = interleaved_times(
            [repeatable_call(model, batch) for model in (dense, small)], FEWEST_ROUNDS if is_late else ROUNDS
        )
    return times, () if is_late else layer_times(dense, small, batch, writes)


def _times_in_onnxruntime(dense: nn.Module, small: nn.Module, batch: Batch, writes: bool, is_late: bool) -> Times:
    with isolated_evaluation(dense, writes), isolated_evaluation(small, writes):
        onnx_models = [export_onnx(model, batch) for model in (dense, small)]
    times = interleaved_times([session_call(model) for model in onnx_models], FEWEST_ROUNDS if is_late else ROUNDS)
    modules = [name for name, _ in dense.named_modules()]
    return times, () if is_late else onnx_layer_times(onnx_models[0], onnx_models[1], modules)


TIMERS: Mapping[str, Callable[[nn.Module, nn.Module, Batch, bool, bool], Times]] = {
    EAGER: _times_in_torch,
    ONNXRUNTIME: _times_in_onnxruntime,
}
