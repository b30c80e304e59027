"""The trials of a comparison: networks cut by each criterion, judged without and with repair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.config import PruneConfig
from secateur.allocation.fixed_sizes import fixed_units
from secateur.allocation.plan_sizes import Allocation, SizeRules, plan_tied_sizes
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.data.batch import Batch, on_device
from secateur.data.user_examples import UserExamples
from secateur.errors import DataError
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.channel_steps import AUTO
from secateur.evaluation.evaluate import evaluate
from secateur.evaluation.metric_checks import check_dense_value
from secateur.evaluation.metrics import MetricValues, is_higher_better, metric_name
from secateur.evaluation.report_split import ReportExamples, split_examples
from secateur.files.state_memo import StateMemo, key_of
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.scores import Scores
from secateur.recovery.repair import run_repairs
from secateur.recovery.repair_runner import RepairSettings
from secateur.recovery.repair_table import repair_names
from secateur.report.comparison_records import NO_REPAIR, ComparisonTrial, CriterionMetrics, RankedMetric
from secateur.surgery.cut import cut_with_recipe
from secateur.utils.collected_warnings import own_warnings_dropped
from secateur.utils.progress import track

FEWEST = 8


class ComparisonTrials:
    """The trials of a comparison, on the same examples.

    Args:
        model: the dense model.
        calibration: the traced network, and the examples to plan and repair with.
        tests: the examples to judge by.
        config: the settings.
        results: the trials and repairs of an interrupted run, by key.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration: Calibration,
        tests: Sequence[Batch],
        config: PruneConfig,
        results: StateMemo | None = None,
    ) -> None:
        self._model, self._calibration, self._config = model, calibration, config
        self._results = results or StateMemo()
        self._tests = [on_device(batch, calibration.network.device) for batch in tests]
        with own_warnings_dropped():  # a metric without a value is refused below
            self.dense = self._metrics(model)
        if config.metric is not None and self.dense.metric is not None:
            check_dense_value(config.metric, self.dense.metric.values, f"{len(self.dense.losses)} examples held out")
        self.trials: list[ComparisonTrial] = []
        self.scores: dict[str, Scores] = {}

    def add(self, name: str, scores: Scores, seconds: float, budgets: Sequence[Budget]) -> None:
        """Cut and repair by one criterion's scores at every budget."""
        self.scores[name] = scores
        for budget in track(budgets, "budgets"):
            compute = partial(self._trials, name, scores, seconds, budget)
            self.trials += recalled_trials(self._results, key_of("trials", name, dict(budget)), compute)

    def _trials(self, name: str, scores: Scores, seconds: float, budget: Budget) -> list[ComparisonTrial]:
        """Return the trial at one budget, without and with repair."""
        plan = self._plan(scores, budget)
        cut_model, fraction = cut_with_recipe(self._model, plan), plan.cost.macs / max(plan.dense.macs, 1)
        metrics_before = self._metrics(cut_model.model)
        trial = ComparisonTrial(name, dict(budget), NO_REPAIR, fraction, seconds, metrics_before)
        if self._config.repair is None:
            return [trial]
        with own_warnings_dropped():  # the losses on other examples are shown for every trial
            run_repairs(cut_model, self._calibration, self._config.repair, RepairSettings({}, results=self._results))
        metrics_after = self._metrics(cut_model.model)
        return [trial, replace(trial, repair=repair_names(self._config.repair), metrics=metrics_after)]

    def _metrics(self, small: nn.Module) -> CriterionMetrics:
        with torch.random.fork_rng(devices=[]):
            writes = self._calibration.network.program.writes
            loss, metric = self._config.loss, self._config.metric
            measures = evaluate(self._model, small, self._tests, loss, metric, writes)[1]
        values = measures.metric
        ranked_metric = None
        if metric is not None and values is not None:
            ranked_metric = RankedMetric(metric_name(metric), values, is_higher_better(metric))
        return CriterionMetrics.of(measures.losses, measures.accuracies, measures.agreements, ranked_metric)

    def _plan(self, scores: Scores, budget: Budget) -> Plan:
        names = [self._config.allocation] if isinstance(self._config.allocation, str) else self._config.allocation
        if AUTO in names:
            return choose_plan(self._calibration, scores, budget, self._config, self._model)
        network = self._calibration.network
        fixed_groups = fixed_units(network, scores, self._config.sizes or {}, self._config.multiple, self._config.floor)
        return plan_tied_sizes(network, scores, budget, Allocation(tuple(names)), SizeRules(fixed_groups=fixed_groups))


def measured_examples(calibration: Calibration, tests: Sequence[Batch], timed_batch: Batch) -> ReportExamples:
    """Return the examples to judge by as those of a report, with a note where some occur in the calibration, too.

    Args:
        calibration: the examples to work with.
        tests: the examples to judge by.
        timed_batch: the batch to time networks on.
    """
    examples = split_examples(calibration.microbatches, tests, None)
    return replace(examples, timed=timed_batch).on(calibration.network.device)


def calibration_and_tests(
    model: nn.Module, network: Network, examples: UserExamples
) -> tuple[Calibration, Sequence[Batch]]:
    """Return the examples to work with and those to judge by: a quarter held out, unless there are tests.

    Raises:
        DataError: there are too few to hold some out.
    """
    microbatches, dense = network_microbatches(network, examples.data), bake_parametrizations(model)
    calibration = Calibration(network, microbatches, dense)
    if examples.test is not None:
        return calibration, as_examples(network, examples.test)
    if calibration.examples < FEWEST:
        raise DataError(f"fewer than {FEWEST} examples can't serve to rank and to judge; give more, or test=")
    return Calibration(network, calibration.fitted, dense), calibration.held_out


def recalled_trials(
    results: StateMemo, key: str, compute: Callable[[], list[ComparisonTrial]]
) -> list[ComparisonTrial]:
    """Return the trials of an interrupted run, or make and keep them.

    Args:
        results: the results of the run, by key.
        key: what the trials depend on beside the run.
        compute: makes the trials.
    """
    state = results.recall(key, lambda: {"trials": [_state_of_trial(trial) for trial in compute()]})
    return [ComparisonTrial(**{**item, "metrics": _metrics_of_state(item["metrics"])}) for item in state["trials"]]


def _state_of_trial(trial: ComparisonTrial) -> dict[str, Any]:
    metric = trial.metrics.metric
    metric_values = None if metric is None else {**vars(metric), "values": dict(vars(metric.values))}
    return {**vars(trial), "metrics": {**vars(trial.metrics), "metric": metric_values}}


def _metrics_of_state(state: Mapping[str, Any]) -> CriterionMetrics:
    metric_values = state["metric"]
    metric = (
        None
        if metric_values is None
        else RankedMetric(**{**metric_values, "values": MetricValues(**metric_values["values"])})
    )
    return CriterionMetrics(**{**state, "metric": metric})
