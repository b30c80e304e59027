"""A chain of repairs: each step is judged on held-out examples, then the helpful ones are fitted to all examples."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from secateur.data.batch import Batch
from secateur.errors import MissingGradientError
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.comparison_temperature import comparison_temperature
from secateur.evaluation.dense_outputs import DenseOutputs
from secateur.evaluation.evaluate import output_divergences
from secateur.evaluation.holdout import improves, spread_microbatches
from secateur.evaluation.outputs import with_named_scores
from secateur.files.state_memo import StateMemo, key_of
from secateur.graph.model_copies import copy_model
from secateur.recovery.adapt_memory import adapt_shortage
from secateur.recovery.adapt_rows import few_equations
from secateur.recovery.batchnorm import match_batchnorm
from secateur.recovery.block_reconstruction import EXAMPLES, POLISH, STEPS, reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.head_features import head_paths
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import Choices, match_means, refit
from secateur.recovery.repair_step import RepairStep
from secateur.recovery.repair_table import ALLOWANCES, CLOSED_FORM, TRAINED, Repairs
from secateur.recovery.saved_repairs import RepairOutcome, copy_tensors, recalled_repair
from secateur.recovery.training_task import TrainingFunction, TrainingSchedule, TrainingTask
from secateur.surgery.cut import CutModel
from secateur.utils.collected_warnings import warn
from secateur.utils.distributed import results_if_shared
from secateur.utils.free_memory import return_free_memory
from secateur.utils.progress import counted
from secateur.utils.shared_tasks import map_shares
from secateur.utils.time_budget import TimeBudget

LATEST = {"adapt": 0.75, "tune": 0.85}  # shares of a time budget, after which a repair is not begun
JUDGED = 0.88  # the share after which a repair on trial ends
FINISHED = 0.95  # the share after which the fit to all examples ends; the rest is for the report


@dataclass(frozen=True)
class Tuning:
    """The options of repairs.

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


@dataclass(frozen=True, eq=False)
class WaitingRepair:
    """A repair that was kept, and is done again with all examples.

    Args:
        number: its number among the repairs.
        name: its name.
        train: the function of a repair that trains.
        schedule: how it trained on trial, None for other repairs.
    """

    number: int
    name: str
    train: TrainingFunction
    schedule: TrainingSchedule | None = None


class RepairChain:
    """The repairs of a cut model.

    Args:
        cut_model: the cut model, which is changed by `finish` alone, with the plan and the recipe of the cut.
        calibration: the examples, with the dense model.
        tuning: how repairs run.
    """

    def __init__(self, cut_model: CutModel, calibration: Calibration, tuning: Tuning) -> None:
        assert calibration.dense is not None
        small, plan = cut_model.model, cut_model.plan
        self.small, self.plan, self.recipe, self.tuning = small, plan, cut_model.recipe, tuning
        self.dense, self.microbatches = calibration.dense, calibration.microbatches
        self.dense_outputs = DenseOutputs(calibration.dense, plan.network.program.writes)
        self.fitted, self.held = calibration.fitted, calibration.held_out
        self.state = small  # with what was kept so far; it is replaced and never changed
        self.adapted: nn.Module | None = None  # the state after the last "adapt" that was kept
        self.waiting: list[WaitingRepair] = []  # what was kept since, to be done again with all examples
        self.head = head_paths(self.dense, small, plan.network, cut_model.recipe)
        self.choices: dict[int, Choices] = {}  # of each refit, by its number among the repairs
        self.results = tuning.results.under(key_of(plan.kept, plan.means))
        self.temperature = 1.0  # at which outputs are compared
        self.before_adapt = range(0)  # the numbers of the repairs that "adapt" follows
        self.kept: list[str] = []  # the keys of the repairs that were kept
        self.few_equations = ""  # why "adapt" is left out
        self.seconds: dict[int, float] = {}  # that repairs took on trial, by their numbers

    def judge(self, repairs: Repairs) -> tuple[RepairStep, ...]:
        """Try each repair on three quarters of the examples, and keep it if the held-out quarter comes nearer."""
        steps: list[RepairStep] = []
        self._prepare_adapt(repairs)
        self.temperature = self._comparison_temperature()
        before = self._divergences(self.state, self.held)
        for number, (name, train) in enumerate(repairs):
            if self._is_left_out(name):
                continue
            try:
                candidate, outcome = recalled_repair(
                    self.results, self._key(number, name), partial(self._judged, number, name, train),
                    lambda: copy_model(self.state, {}),
                )  # fmt: skip
            except MissingGradientError as failure:
                warn(
                    f"adapt was left out, because an operator of the network has no gradient ({failure}); register one "
                    "with torch.library.register_autograd, or give repair='refit'"
                )
                continue
            self.choices.update({} if outcome.choices is None else {number: outcome.choices})
            steps.append(self._step(name, before, outcome))
            if steps[-1].kept:
                self._keep(WaitingRepair(number, name, train, outcome.schedule), candidate)
                before = outcome.held_out
        return tuple(steps)

    def _comparison_temperature(self) -> float:
        with self.dense_outputs.ready_for(self.held):
            return comparison_temperature(
                with_named_scores(self.dense_outputs.of(batch), batch.has_token_scores) for batch in self.held
            )

    def _prepare_adapt(self, repairs: Repairs) -> None:
        """Find out whether the examples give enough equations for "adapt", and which repairs it follows then."""
        if any(name == "adapt" for name, _ in repairs):
            network = self.plan.network
            self.few_equations = few_equations(network, network.mask(self.plan.kept), self.fitted)
        self.before_adapt = range(0) if self.few_equations else _before_adapt(repairs)

    def _step(self, name: str, before: torch.Tensor, outcome: RepairOutcome) -> RepairStep:
        """Return the result of a repair, from the divergences before it, (examples,), and its outcome."""
        kept = improves(before, outcome.held_out, ALLOWANCES.get(name, 0.0))
        was, now, fitted = (float(divergences.mean()) for divergences in (before, outcome.held_out, outcome.fitted))
        training = "" if outcome.schedule is None else str(outcome.schedule)
        return RepairStep(name, was, now, fitted, kept, self.temperature, training)

    def _is_left_out(self, name: str) -> bool:
        """Return whether there is no time or no memory for a repair, and tell which."""
        if name in LATEST and self.tuning.time.is_spent(LATEST[name]):
            self.tuning.time.leave_out(f"the repair '{name}'")
            return True
        if name != "adapt":
            return False
        shortage = self.few_equations or self._adapt_shortage()
        if shortage:
            warn(shortage)
        return bool(shortage)

    def _adapt_shortage(self) -> str:
        """Return why a process has no memory for "adapt", the same text in all processes; else ""."""
        mask = self.plan.network.mask(self.plan.kept)
        find_shortage = partial(adapt_shortage, self.plan.network, mask)
        return next(filter(None, results_if_shared(find_shortage, "the memory for 'adapt'")), "")

    def _key(self, number: int, name: str) -> str:
        """Return all that a repair depends on beside the plan and the run: what was kept before, and what follows."""
        following = " before adapt" if number in self.before_adapt else ""
        return f"{number} {name}{following}" + "".join(f" after ({key})" for key in self.kept[-1:])

    def _judged(self, number: int, name: str, train: TrainingFunction) -> tuple[nn.Module, RepairOutcome]:
        """Return a copy after a repair on the fitted examples, measured on these and on those held out."""
        start = self.tuning.time.elapsed
        with counted(f"{name} on trial"):
            candidate, schedule = self._tried(number, name, train)
        self.seconds[number] = self.tuning.time.elapsed - start
        some_fitted = spread_microbatches(self.fitted, sum(microbatch.size or 1 for microbatch in self.held))
        held_out, fitted = (self._divergences(candidate, batches) for batches in (self.held, some_fitted))
        return_free_memory()
        return candidate, RepairOutcome(held_out, fitted, self.choices.get(number), schedule)

    def _divergences(self, candidate: nn.Module, microbatches: Sequence[Batch]) -> torch.Tensor:
        """Return the divergence of a network's outputs from the dense one's, (examples,)."""
        writes, dense = self.plan.network.program.writes, self.dense_outputs
        scales = dense.scales_of(microbatches)  # of all of them, whichever a process compares

        def divergences(share: Sequence[Batch]) -> list[torch.Tensor]:
            joined = output_divergences(dense, candidate, share, writes, self.temperature, scales).cpu()
            return list(torch.split(joined, [microbatch.size or 1 for microbatch in share]))

        return torch.cat(map_shares("compared outputs", microbatches, divergences))

    def finish(self) -> None:
        """Fit the kept repairs to all examples, and give the result to the cut model.

        After "adapt" the weights are near enough that a few steps more will do. "tune" repeats the schedule that it
        found. Functions of the user's own are called once only: what was judged is what stays.
        """
        ahead = [self.seconds.get(waiting.number, 0.0) for waiting in self.waiting]
        is_late = self.tuning.time.is_spent(FINISHED, sum(ahead))
        if is_late:
            self.tuning.time.leave_out("the fit to the examples held out")
        if is_late or any(waiting.name not in (*CLOSED_FORM, *TRAINED) for waiting in self.waiting):
            copy_tensors(self.small, self.state)
            return
        self.state = self.small  # frees what was judged
        key = f"on all examples: {self.kept[-1] if self.kept else 'nothing'}"
        recalled_repair(self.results, key, self._fit_all, lambda: self.small)

    def _fit_all(self) -> tuple[nn.Module, RepairOutcome]:
        if self.adapted is not None:
            copy_tensors(self.small, self.adapted)
            with counted("adapt on all examples"):
                self._solve(-1, "adapt", self.small, self._unseen_first(), POLISH).write(self.small)
        for waiting in self.waiting:
            with counted(f"{waiting.name} on all examples"):
                if waiting.name in CLOSED_FORM:
                    self._solve(waiting.number, waiting.name, self.small, self.microbatches, STEPS).write(self.small)
                else:
                    self._train(waiting.train, self.small, self.microbatches, waiting.schedule)
        return self.small, RepairOutcome(torch.zeros(0), torch.zeros(0))

    def _unseen_first(self) -> list[Batch]:
        """Return as many microbatches as "adapt" reads, unseen ones first."""
        fitted_ids = {id(microbatch) for microbatch in spread_microbatches(self.fitted, EXAMPLES)}
        ordered = [*self.held, *sorted(self.fitted, key=lambda microbatch: id(microbatch) in fitted_ids)]
        sizes = itertools.accumulate((microbatch.size or 1 for microbatch in ordered), initial=0)
        return [microbatch for microbatch, before in zip(ordered, sizes, strict=False) if before < EXAMPLES]

    def _keep(self, repair: WaitingRepair, candidate: nn.Module) -> None:
        self.state = candidate
        self.kept.append(self._key(repair.number, repair.name))
        self.waiting.append(repair)
        if repair.name == "adapt" and all(waiting.name in CLOSED_FORM for waiting in self.waiting):
            self.adapted, self.waiting = candidate, []

    def _tried(self, number: int, name: str, train: TrainingFunction) -> tuple[nn.Module, TrainingSchedule | None]:
        """Return a copy of the state after a repair on the fitted examples, and how a training ran."""
        if name in CLOSED_FORM:
            return self._solve(number, name, self.state, self.fitted, STEPS).written(self.state), None
        candidate = copy_model(self.state, {})
        return candidate, self._train(train, candidate, self.fitted)

    def _train(
        self,
        train: TrainingFunction,
        small: nn.Module,
        microbatches: Sequence[Batch],
        schedule: TrainingSchedule | None = None,
    ) -> TrainingSchedule | None:
        """Train a network; a training on trial left how it ran."""
        tuning, share = self.tuning, JUDGED if schedule is None else FINISHED
        writes = self.plan.network.program.writes
        task = TrainingTask(
            small, self.dense, microbatches, self.held, tuning.options, tuning.seed, writes, self.temperature,
            self.head, schedule, lambda: tuning.time.is_spent(share),
        )  # fmt: skip
        schedule = train(task)
        if schedule is not None and tuning.time.is_spent(share):
            tuning.time.leave_out("the last steps of a training")
        return schedule

    def _solve(
        self, number: int, name: str, small: nn.Module, microbatches: Sequence[Batch], steps: int
    ) -> EmbeddedPrunedNetwork:
        """Return a network after a repair in closed form; a repeated refit uses the choices of its first run."""
        within = EmbeddedPrunedNetwork.of(small, self.plan.network, self.recipe)
        execution = PairedExecution(within, microbatches)
        with torch.no_grad():
            if name == "mean":
                match_means(execution)
            elif name == "batchnorm":
                match_batchnorm(execution)
            elif name == "refit":
                examples = sum(microbatch.size or 1 for microbatch in self.microbatches)
                has_steps = number not in self.before_adapt
                self.choices[number] = refit(execution, self.choices.get(number), examples, has_steps)
            else:
                self._adapt(execution, steps)
        return within

    def _adapt(self, execution: PairedExecution, steps: int) -> None:
        time, share = self.tuning.time, JUDGED if steps == STEPS else FINISHED
        if not reconstruct_blocks(execution, steps, lambda: time.is_spent(share), self.fitted):
            time.leave_out(f"{'the last steps of ' if steps == POLISH else ''}'adapt' for the last layers")


def _before_adapt(repairs: Repairs) -> range:
    """Return the numbers of the repairs that "adapt" follows."""
    return range(max((number for number, (name, _) in enumerate(repairs) if name == "adapt"), default=0))
