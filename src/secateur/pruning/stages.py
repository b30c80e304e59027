"""The stages of `prune`: trace, score, plan, cut, repair and measure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.score_checks import warn_of_other_weights
from secateur.coupling.block_selection import SelectedNetwork, select_units
from secateur.coupling.network import Network
from secateur.coupling.plan import Plan, cost_text
from secateur.data.user_examples import UserExamples
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.report_split import ReportExamples, split_examples
from secateur.evaluation.runtimes import EAGER, is_installed, runtime_of
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.pruning.request import PruneRequest
from secateur.pruning.results import Result
from secateur.pruning.rounds import score_iteratively
from secateur.pruning.run_checkpoint import RunCheckpoint, recalled_scores
from secateur.pruning.setting_checks import check_network
from secateur.recovery.refit_memory import check_refit_memory
from secateur.recovery.repair import run_repairs
from secateur.recovery.repair_runner import RepairSettings
from secateur.recovery.repair_step import RepairStep
from secateur.report.measured_report import measure_networks
from secateur.report.report import Report
from secateur.surgery.cut import CutModel, cut_with_recipe
from secateur.utils.collected_warnings import warn
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage
from secateur.utils.time_budget import TimeBudget

LATE = 1.1  # times a budget of seconds, from which on the time that has passed is named


@dataclass(frozen=True, eq=False)
class PruneStages:
    """The stages of one run of `prune`, each of which takes the records of earlier ones and returns one.

    Args:
        request: the arguments of `prune`.
        examples: the examples of the user.
        saved: the results of an interrupted run.
    """

    request: PruneRequest
    examples: UserExamples
    saved: RunCheckpoint

    def run(self) -> Result:
        """Run all stages."""
        selected_network = self.trace()
        report_split = self.split(selected_network)
        calibration = self.calibrate(selected_network.network, report_split)
        scores = self.score(selected_network, report_split, calibration)
        plan = self.plan(calibration, scores)
        cut_model = self.cut(plan)
        steps = self.repair(cut_model, calibration)
        is_late = _is_late(self.request.config.time)
        report = self.measure(cut_model, scores, report_split, steps, is_late)
        return Result(cut_model.model, plan, scores, report, cut_model.recipe)

    def trace(self) -> SelectedNetwork:
        """Find the units of the model, and select those that may be removed."""
        with stage("trace", self.request.stages) as tracing:
            network = self.request.tracer(self.examples)(self.request.model)
            tracing.add_result(f"{number_of(len(network.groups), 'group')} of {number_of(network.units, 'unit')}")
        return select_units(network, self.request.only, self.request.skip)

    def split(self, selected_network: SelectedNetwork) -> ReportExamples:
        """Check the examples against the network, and keep some of them away for the report."""
        request, config, network = self.request, self.request.config, selected_network.network
        batches = as_examples(network, self.examples.data)
        tests = None if self.examples.test is None else as_examples(network, self.examples.test)
        check_network(selected_network, [*batches, *(tests or ())], [request.keep], config)
        return split_examples(batches, tests, config.holdout, request.scores is not None)

    def calibrate(self, network: Network, report_split: ReportExamples) -> Calibration:
        """Return the examples to plan and repair with, in microbatches, with the dense model."""
        microbatches = network_microbatches(network, report_split.fitted)
        if self.request.config.refits:
            check_refit_memory(network, microbatches)
        return Calibration(network, microbatches, bake_parametrizations(self.request.model))

    def score(
        self, selected_network: SelectedNetwork, report_split: ReportExamples, calibration: Calibration
    ) -> Scores:
        """Score the units, once or in rounds, or select the scores that exist."""
        request, config = self.request, self.request.config
        if request.scores is not None:
            return _selected_scores(selected_network, request.scores)
        score_network = partial(
            score, data=report_split.fitted, by=config.by, loss=config.loss, ablation=config.ablation,
            only=selected_network.only, skip=selected_network.skip, seed=config.seed, **request.options,
        )  # fmt: skip
        with stage("score", request.stages):
            recall = recalled_scores(self.saved, config.by, score_network)
            trace_model = request.tracer(self.examples)
            return score_iteratively(request.model, calibration, recall, request.keep, config, trace_model)

    def plan(self, calibration: Calibration, scores: Scores) -> Plan:
        """Choose the units that stay."""
        config = replace(self.request.config, results=self.saved.plans)
        config.time.divide_rest()
        with stage("plan", self.request.stages) as planning:
            plan = choose_plan(calibration, scores, self.request.keep, config, self.request.model)
            planning.add_result(cost_text(plan))
        return plan

    def cut(self, plan: Plan) -> CutModel:
        """Cut a copy of the model."""
        with stage("cut", self.request.stages):
            return cut_with_recipe(self.request.model, plan)

    def repair(self, cut_model: CutModel, calibration: Calibration) -> tuple[RepairStep, ...]:
        """Repair the small model in place, and return the result of each step."""
        config = self.request.config
        if config.repair is None:
            return ()
        settings = RepairSettings(self.request.tuning, config.seed, config.time, self.saved.repairs)
        with stage("repair", self.request.stages) as repairing:
            steps = run_repairs(cut_model, calibration, config.repair, settings)
            for step in steps:
                repairing.add_result(str(step))
                step.warn()
        return steps

    def measure(
        self,
        cut_model: CutModel,
        scores: Scores,
        report_split: ReportExamples,
        steps: Sequence[RepairStep],
        is_late: bool,
    ) -> Report:
        """Measure both networks on the examples that were kept away; their times in few runs if it is late."""
        config, runtime = self.request.config, runtime_of(self.request.config.target)
        examples = report_split.on(cut_model.plan.network.device)
        with stage("measure", self.request.stages):
            return measure_networks(
                self.request.model, cut_model.model, cut_model.plan, scores, examples, config.loss, config.metric,
                steps=tuple(steps), time=config.time, is_late=is_late,
                runtime=runtime if is_installed(runtime) else EAGER, context_length=config.context_length,
            )  # fmt: skip


def _selected_scores(selected_network: SelectedNetwork, scores: Scores) -> Scores:
    """Return scores that exist, of the selected groups; warn where the network has other weights now."""
    warn_of_other_weights(selected_network.network, scores)
    if selected_network.only is None and selected_network.skip is None:
        return scores
    return replace(
        scores,
        groups={group.name: scores[group.name] for group in selected_network.groups if group.name in scores},
        of="",
    )


def _is_late(time: TimeBudget) -> bool:
    """Return whether a budget of seconds is spent, and warn of the steps that were left out to meet it."""
    is_late = time.is_spent()
    if is_late:
        time.leave_out("most runs that measure times, and the times of layers")
    if time.left_out:
        time_text = f" ({time.elapsed:.0f} s have passed: some steps are always done)" if time.is_spent(LATE) else ""
        warn(
            f"left out, so that it takes no more than {time.seconds:g} s{time_text}: {', '.join(time.left_out)}; with "
            "more time the small network may be nearer to the dense one"
        )
    return is_late
