"""The stages of `prune`: trace, score, plan, cut, repair and measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.score_checks import warn_of_other_weights
from secateur.coupling.block_selection import select_blocks
from secateur.coupling.network import Network
from secateur.coupling.plan import Plan, cost_text
from secateur.data.batch import Batch
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.report_split import ReportExamples, split_examples
from secateur.evaluation.runtimes import EAGER, is_installed, runtime_of
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.options.selections import Selection
from secateur.pruning.request import PruneRequest
from secateur.pruning.results import Result
from secateur.pruning.rounds import score_iteratively
from secateur.pruning.run_checkpoint import RunCheckpoint, recalled_scores
from secateur.pruning.setting_checks import check_network
from secateur.recovery.chain import Tuning
from secateur.recovery.refit_memory import check_refit_memory
from secateur.recovery.repair import run_repairs
from secateur.recovery.repair_step import RepairStep
from secateur.report.measured_report import measure_networks
from secateur.report.report import Report
from secateur.surgery.cut import cut
from secateur.surgery.recipe import Recipe, recipe_of
from secateur.utils.collected_warnings import warn
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage
from secateur.utils.time_budget import TimeBudget


@dataclass(frozen=True, eq=False)
class PruneStages:
    """The stages of one run, each of which takes what the earlier ones returned.

    Args:
        request: the arguments of `prune`.
        trace_model: traces a model.
        saved: the results of an interrupted run.
    """

    request: PruneRequest
    trace_model: Callable[[nn.Module], Network]
    saved: RunCheckpoint

    def run(self, batches: Sequence[Batch], tests: Sequence[Batch]) -> Result:
        """Run all stages.

        Args:
            batches: the examples.
            tests: those of `test`.
        """
        network, only, skip = select_blocks(self.trace(), self.request.only, self.request.skip)
        stages = replace(self, request=replace(self.request, only=only, skip=skip))
        return stages.run_on(network, batches, tests)

    def run_on(self, network: Network, batches: Sequence[Batch], tests: Sequence[Batch]) -> Result:
        """Run the stages behind the trace, with the selections of its groups.

        Args:
            network: the trace.
            batches: the examples.
            tests: those of `test`.
        """
        examples = self.split(network, batches, tests)
        microbatches = network_microbatches(network, examples.fitted)
        if self.request.config.refits:
            check_refit_memory(network, microbatches)
        scores = self.score(network, examples.fitted, microbatches)
        calibration = Calibration(network, microbatches, bake_parametrizations(self.request.model))
        plan = self.plan(calibration, scores)
        small, recipe = self.cut(plan)
        steps = self.repair(small, plan, recipe, calibration)
        _warn_of_skipped(self.request.config.time)
        report = self.measure(small, plan, scores, examples.on(network.device), steps)
        return Result(small, plan, scores, report, recipe)

    def trace(self) -> Network:
        """Find the units of the model."""
        with stage("trace", self.request.stages) as tracing:
            network = self.trace_model(self.request.model)
            tracing.add_result(f"{number_of(len(network.groups), 'group')} of {number_of(network.units, 'unit')}")
        return network

    def split(self, network: Network, batches: Sequence[Batch], tests: Sequence[Batch]) -> ReportExamples:
        """Check the examples against the network, and keep some of them away for the report."""
        request, config = self.request, self.request.config
        batches, tests = as_examples(network, batches), as_examples(network, tests)
        check_network(
            network, [*batches, *tests], [request.keep], request.only, request.skip, config.multiple, config.floor,
            config.sizes,
        )  # fmt: skip
        return split_examples(
            batches, None if request.test is None else tests, config.holdout, request.scores is not None
        )

    def score(self, network: Network, examples: Sequence[Batch], microbatches: Sequence[Batch]) -> Scores:
        """Score the units, or select the scores that exist.

        Args:
            network: the network.
            examples: the examples to score with.
            microbatches: the same in microbatches, to refit with between rounds.
        """
        request, config = self.request, self.request.config
        if request.scores is not None:
            return _selected_scores(network, request.scores, request.only, request.skip)
        score_network = partial(
            score, data=examples, by=config.by, loss=config.loss, ablation=config.ablation, only=request.only,
            skip=request.skip, seed=config.seed, **request.options,
        )  # fmt: skip
        with stage("score", request.stages):
            recall = recalled_scores(self.saved, config.by, score_network)
            return score_iteratively(
                request.model,
                network,
                microbatches,
                recall,
                request.keep,
                config.rounds,
                self.trace_model,
                config.sizes,
            )

    def plan(self, calibration: Calibration, scores: Scores) -> Plan:
        """Choose the units that stay."""
        config = replace(self.request.config, results=self.saved.plans)
        with stage("plan", self.request.stages) as planning:
            plan = choose_plan(calibration, scores, self.request.keep, config, self.request.model)
            planning.add_result(cost_text(plan))
        return plan

    def cut(self, plan: Plan) -> tuple[nn.Module, Recipe]:
        """Return the small model, and the recipe by which it was cut."""
        with stage("cut", self.request.stages):
            return cut(self.request.model, plan), recipe_of(self.request.model, plan)

    def repair(self, small: nn.Module, plan: Plan, recipe: Recipe, calibration: Calibration) -> tuple[RepairStep, ...]:
        """Repair the small model in place, and return the result of each step."""
        config = self.request.config
        if config.repair is None:
            return ()
        tuning = Tuning(self.request.tuning, config.seed, config.time, self.saved.repairs)
        with stage("repair", self.request.stages) as repairing:
            steps = run_repairs(small, plan, recipe, calibration, config.repair, tuning)
            for step in steps:
                repairing.add_result(str(step))
                step.warn()
        return steps

    def measure(
        self, small: nn.Module, plan: Plan, scores: Scores, examples: ReportExamples, steps: Sequence[RepairStep]
    ) -> Report:
        """Measure both networks on the examples that were kept away."""
        config, runtime = self.request.config, runtime_of(self.request.config.target)
        with stage("measure", self.request.stages):
            return measure_networks(
                self.request.model, small, plan, scores, examples, config.loss, config.metric, steps=tuple(steps),
                time=config.time, runtime=runtime if is_installed(runtime) else EAGER,
                context_length=config.context_length,
            )  # fmt: skip


def _selected_scores(network: Network, scores: Scores, only: Selection | None, skip: Selection | None) -> Scores:
    """Return scores that exist, of the selected groups; warn where the network has other weights now."""
    warn_of_other_weights(network, scores)
    if only is None and skip is None:
        return scores
    selected = {group.name: scores[group.name] for group in network.select(only, skip) if group.name in scores}
    return replace(scores, groups=selected, of="")


def _warn_of_skipped(time: TimeBudget) -> None:
    """Warn of the steps that were left out to meet a budget of seconds."""
    if time.left_out:
        warn(
            f"left out, so that it takes no more than {time.seconds:g} s: {', '.join(time.left_out)}; with more time "
            "the small network may be nearer to the dense one"
        )
