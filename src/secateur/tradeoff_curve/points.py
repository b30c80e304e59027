"""The points of a trade-off curve: networks that are planned, repaired and measured on the same examples."""

from collections.abc import Sequence

from torch import nn

from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.config import PruneConfig
from secateur.allocation.quantities import budget_text
from secateur.coupling.plan import Budget, cost_text
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.report_split import ReportExamples
from secateur.importance.scores import Scores
from secateur.pruning.results import Result
from secateur.recovery.repair import run_repairs
from secateur.recovery.repair_runner import RepairSettings
from secateur.recovery.repair_step import RepairStep
from secateur.report.measured_report import measure_networks
from secateur.surgery.cut import cut_with_recipe
from secateur.tradeoff_curve.curve import TradeoffPoint
from secateur.utils.collected_warnings import warnings_apart
from secateur.utils.progress import stage


class CurvePoints:
    """The networks of a curve, planned, repaired and measured on the same examples.

    Args:
        model: the dense model.
        calibration: the traced network, and the examples to plan and repair with.
        tests: the examples to measure on.
        config: the settings.
        settings: how repairs run.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration: Calibration,
        tests: ReportExamples,
        config: PruneConfig,
        settings: RepairSettings,
    ) -> None:
        self._model, self._calibration, self._tests = model, calibration, tests
        self._config, self._settings = config, settings

    def point(self, scores: Scores, budget: Budget, stages: Sequence[str]) -> TradeoffPoint:
        """Plan, cut, repair and measure the network for one budget, as one of the stages."""
        with stage(budget_text(budget), stages) as pruning, warnings_apart():
            point = self._point(scores, budget)
            pruning.add_result(cost_text(point.result.plan))
        return point

    def _point(self, scores: Scores, budget: Budget) -> TradeoffPoint:
        model, config = self._model, self._config
        plan = choose_plan(self._calibration, scores, budget, config, model)
        cut_model = cut_with_recipe(model, plan)
        steps: tuple[RepairStep, ...] = ()
        if config.repair is not None:
            steps = run_repairs(cut_model, self._calibration, config.repair, self._settings)
        for step in steps:
            step.warn()
        small = cut_model.model
        report = measure_networks(model, small, plan, scores, self._tests, config.loss, config.metric, steps=steps)
        changes = {name: change for name, change in report.changes.items() if name != "divergence"}
        return TradeoffPoint(dict(budget), Result(small, plan, scores, report, cut_model.recipe), changes)
