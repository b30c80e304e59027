"""Runs of single repairs of a cut network: in closed form, or by training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateur.data.batch import Batch
from secateur.evaluation.calibration import Calibration
from secateur.files.state_memo import StateMemo
from secateur.graph.model_copies import copy_model
from secateur.recovery.batchnorm import match_batchnorm
from secateur.recovery.block_reconstruction import POLISH, STEPS, reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.head_features import head_paths
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import Choices, match_means, refit
from secateur.recovery.repair_table import CLOSED_FORM
from secateur.recovery.training_task import TrainingFunction, TrainingSchedule, TrainingTask
from secateur.surgery.cut import CutModel
from secateur.utils.time_budget import TimeBudget

TRIAL_END = 0.88  # the share of a time budget after which a repair on trial ends
FIT_END = 0.95  # the share after which the fit to all examples ends; the rest is for the report
MOST_VALUE_BYTES = 3 << 28  # between layers: with the values of the layer that is solved for, less than 1.5 GiB


@dataclass(frozen=True)
class RepairSettings:
    """The settings of repairs.

    Args:
        options: of those that train.
        seed: for the order of examples in training.
        time: how long they may take.
        results: the repairs that an interrupted run did, by key.
    """

    options: Mapping[str, Any]
    seed: int = 0
    time: TimeBudget = field(default_factory=TimeBudget)
    results: StateMemo = field(default_factory=StateMemo)


class RepairRunner:
    """Runs single repairs of a cut model.

    Args:
        cut_model: the cut model, with the plan and the recipe of the cut.
        calibration: the examples, with the dense model.
        settings: how repairs run.

    Attributes:
        temperature: the temperature at which trainings compare outputs.
        before_adapt: the numbers of the repairs that "adapt" follows, whose refits take no steps.
        answers_mirrored: whether the last steps of "adapt" also use the mirror images of the examples.
    """

    def __init__(self, cut_model: CutModel, calibration: Calibration, settings: RepairSettings) -> None:
        assert calibration.dense is not None
        self.dense, self.calibration = calibration.dense, calibration
        self.network, self.recipe, self.settings = cut_model.plan.network, cut_model.recipe, settings
        self.temperature, self.before_adapt, self.answers_mirrored = 1.0, range(0), False
        self.head = head_paths(self.dense, cut_model.model, self.network, self.recipe)
        self.choices: dict[int, Choices] = {}  # of each refit, by its number among the repairs

    def repaired_copy(
        self, number: int, name: str, train: TrainingFunction, state: nn.Module
    ) -> tuple[nn.Module, TrainingSchedule | None]:
        """Return a copy of a network after a repair on the fitted examples, and the schedule of a training.

        Args:
            number: the number among the repairs.
            name: the name of the repair.
            train: the function of a repair that trains.
            state: the network before the repair, which is not changed.
        """
        fitted = self.calibration.fitted
        if name in CLOSED_FORM:
            return self.solve(number, name, state, fitted, STEPS).copy_with_state(state), None
        candidate = copy_model(state, {})
        return candidate, self.train(train, candidate, fitted)

    def train(
        self,
        train: TrainingFunction,
        small: nn.Module,
        microbatches: Sequence[Batch],
        schedule: TrainingSchedule | None = None,
    ) -> TrainingSchedule | None:
        """Train a network in place, and return the schedule.

        Args:
            train: the function of the repair.
            small: the network.
            microbatches: the examples.
            schedule: the schedule that a training on trial followed, to repeat; None on trial.
        """
        settings, share = self.settings, TRIAL_END if schedule is None else FIT_END
        task = TrainingTask(
            small, self.dense, microbatches, self.calibration.held_out, settings.options, settings.seed,
            self.network.program.writes, self.temperature, self.head, schedule, lambda: settings.time.is_spent(share),
        )  # fmt: skip
        schedule = train(task)
        if schedule is not None and settings.time.is_spent(share):
            settings.time.leave_out("the last steps of a training")
        return schedule

    def solve(
        self, number: int, name: str, small: nn.Module, microbatches: Sequence[Batch], steps: int
    ) -> EmbeddedPrunedNetwork:
        """Return a network after a repair in closed form; a repeated refit uses the choices of its first run.

        Args:
            number: the number among the repairs.
            name: the name of the repair.
            small: the network before the repair, which is not changed.
            microbatches: the examples.
            steps: the most steps of "adapt".
        """
        cut_network = EmbeddedPrunedNetwork.of(small, self.network, self.recipe)
        execution = PairedExecution(cut_network, microbatches, MOST_VALUE_BYTES)
        with torch.no_grad():
            if name == "mean":
                match_means(execution)
            elif name == "batchnorm":
                match_batchnorm(execution)
            elif name == "refit":
                has_steps = number not in self.before_adapt
                choices = self.choices.get(number)
                self.choices[number] = refit(execution, choices, self.calibration.examples, has_steps)
            else:
                self._adapt(execution, steps)
        return cut_network

    def _adapt(self, execution: PairedExecution, steps: int) -> None:
        time, share = self.settings.time, TRIAL_END if steps == STEPS else FIT_END
        fitted, adds_mirrored = self.calibration.fitted, self.answers_mirrored and steps == POLISH
        if not reconstruct_blocks(execution, steps, lambda: time.is_spent(share), fitted, adds_mirrored):
            time.leave_out(f"{'the last steps of ' if steps == POLISH else ''}'adapt' for the last layers")
