"""A chain of repairs: each step is judged on held-out examples, then the helpful ones are fitted to all examples."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
from secateur.files.state_memo import key_of
from secateur.graph.model_copies import copy_model
from secateur.recovery.adapt_memory import adapt_shortage
from secateur.recovery.adapt_rows import few_equations
from secateur.recovery.block_reconstruction import EXAMPLES, POLISH, STEPS
from secateur.recovery.mirrored_images import answers_mirrored_images
from secateur.recovery.repair_runner import FIT_END, RepairRunner, RepairSettings
from secateur.recovery.repair_step import RepairStep
from secateur.recovery.repair_table import ALLOWANCES, CLOSED_FORM, TRAINED, Repairs
from secateur.recovery.saved_repairs import RepairOutcome, copy_tensors, recalled_repair
from secateur.recovery.training_task import TrainingFunction, TrainingSchedule
from secateur.surgery.cut import CutModel
from secateur.utils.collected_warnings import warn
from secateur.utils.distributed import results_if_shared
from secateur.utils.free_memory import return_free_memory
from secateur.utils.progress import counted
from secateur.utils.shared_tasks import map_shares

LATEST_START = {"adapt": 0.75, "tune": 0.85}  # shares of a time budget after which a repair is not begun


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
        settings: how repairs run.
    """

    def __init__(self, cut_model: CutModel, calibration: Calibration, settings: RepairSettings) -> None:
        assert calibration.dense is not None
        self.small, self.plan, self.time = cut_model.model, cut_model.plan, settings.time
        self.runner = RepairRunner(cut_model, calibration, settings)
        self.dense_outputs = DenseOutputs(calibration.dense, self.plan.network.program.writes)
        self.microbatches = calibration.microbatches
        self.fitted, self.held_out = calibration.fitted, calibration.held_out
        self.state = self.small  # after the repairs that were kept so far; it is replaced and never changed
        self.adapted: nn.Module | None = None  # the state after the last "adapt" that was kept
        self.waiting: list[WaitingRepair] = []  # kept after that "adapt", to be done again with all examples
        self.results = settings.results.under(key_of(self.plan.kept, self.plan.means))
        self.kept: list[str] = []  # the keys of the repairs that were kept
        self.few_equations = ""  # why "adapt" is left out
        self.seconds: dict[int, float] = {}  # of repairs on trial, by their numbers

    def judge(self, repairs: Repairs) -> tuple[RepairStep, ...]:
        """Try each repair on three quarters of the examples, and keep it if the held-out quarter comes nearer."""
        steps: list[RepairStep] = []
        self.runner.temperature = self._comparison_temperature()
        self._prepare_adapt(repairs)
        before = self._divergences(self.state, self.held_out)
        for number, (name, train) in enumerate(repairs):
            if self._is_left_out(name):
                continue
            try:
                candidate, outcome = recalled_repair(
                    self.results, self._key(number, name), partial(self._run_on_trial, number, name, train),
                    lambda: copy_model(self.state, {}),
                )  # fmt: skip
            except MissingGradientError as failure:
                warn(
                    f"adapt was left out, because an operator of the network has no gradient ({failure}); register one "
                    "with torch.library.register_autograd, or give repair='refit'"
                )
                continue
            self.runner.choices.update({} if outcome.choices is None else {number: outcome.choices})
            steps.append(self._step(name, before, outcome))
            if steps[-1].kept:
                self._keep(WaitingRepair(number, name, train, outcome.schedule), candidate)
                before = outcome.held_out
        return tuple(steps)

    def _comparison_temperature(self) -> float:
        with self.dense_outputs.ready_for(self.held_out):
            return comparison_temperature(
                with_named_scores(self.dense_outputs.of(batch), batch.has_token_scores) for batch in self.held_out
            )

    def _prepare_adapt(self, repairs: Repairs) -> None:
        """Find out whether the examples give enough equations for "adapt", which repairs it follows, and its images."""
        if not any(name == "adapt" for name, _ in repairs):
            return
        runner, network = self.runner, self.plan.network
        self.few_equations = few_equations(network, network.mask(self.plan.kept), self.fitted)
        if not self.few_equations:
            runner.before_adapt = _before_adapt(repairs)
            runner.answers_mirrored = answers_mirrored_images(
                runner.dense, self.fitted, runner.temperature, writes=network.program.writes
            )

    def _step(self, name: str, before: torch.Tensor, outcome: RepairOutcome) -> RepairStep:
        """Return the result of a repair, from the divergences before it, (examples,), and its outcome."""
        kept = improves(before, outcome.held_out, ALLOWANCES.get(name, 0.0))
        mean_before, mean_after, mean_fitted = (
            float(divergences.mean()) for divergences in (before, outcome.held_out, outcome.fitted)
        )
        training = "" if outcome.schedule is None else str(outcome.schedule)
        return RepairStep(name, mean_before, mean_after, mean_fitted, kept, self.runner.temperature, training)

    def _is_left_out(self, name: str) -> bool:
        """Return whether there is no time or no memory for a repair, and tell which."""
        if name in LATEST_START and self.time.is_spent(LATEST_START[name]):
            self.time.leave_out(f"the repair '{name}'")
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
        following = " before adapt" if number in self.runner.before_adapt else ""
        return f"{number} {name}{following}" + "".join(f" after ({key})" for key in self.kept[-1:])

    def _run_on_trial(self, number: int, name: str, train: TrainingFunction) -> tuple[nn.Module, RepairOutcome]:
        """Return a copy after a repair on the fitted examples, measured on these and on those held out."""
        start = self.time.elapsed
        with counted(f"{name} on trial"):
            candidate, schedule = self.runner.repaired_copy(number, name, train, self.state)
        self.seconds[number] = self.time.elapsed - start
        fitted_microbatches = spread_microbatches(
            self.fitted, sum(microbatch.size or 1 for microbatch in self.held_out)
        )
        held_out, fitted = (self._divergences(candidate, batches) for batches in (self.held_out, fitted_microbatches))
        return_free_memory()
        return candidate, RepairOutcome(held_out, fitted, self.runner.choices.get(number), schedule)

    def _divergences(self, candidate: nn.Module, microbatches: Sequence[Batch]) -> torch.Tensor:
        """Return the divergence of a network's outputs from the dense one's, (examples,)."""
        writes, dense = self.plan.network.program.writes, self.dense_outputs
        scales = dense.scales_of(microbatches)  # of all of them, whichever a process compares

        def divergences(share: Sequence[Batch]) -> list[torch.Tensor]:
            all_divergences = output_divergences(dense, candidate, share, writes, self.runner.temperature, scales).cpu()
            return list(torch.split(all_divergences, [microbatch.size or 1 for microbatch in share]))

        return torch.cat(map_shares("compared outputs", microbatches, divergences))

    def finish(self) -> None:
        """Fit the kept repairs to all examples, and give the result to the cut model.

        After "adapt" the weights are near enough that a few steps more will do. "tune" repeats the schedule that it
        found. Functions of the user's own are called once only: what was judged is what stays.
        """
        ahead = [self.seconds.get(waiting.number, 0.0) for waiting in self.waiting]
        is_late = self.time.is_spent(FIT_END, sum(ahead))
        if is_late:
            self.time.leave_out("the fit to the examples held out")
        if is_late or any(waiting.name not in (*CLOSED_FORM, *TRAINED) for waiting in self.waiting):
            copy_tensors(self.small, self.state)
            return
        self.state = self.small  # frees what was judged
        key = f"on all examples: {self.kept[-1] if self.kept else 'nothing'}"
        recalled_repair(self.results, key, self._fit_all, lambda: self.small)

    def _fit_all(self) -> tuple[nn.Module, RepairOutcome]:
        small = self.small
        if self.adapted is not None:
            copy_tensors(small, self.adapted)
            with counted("adapt on all examples"):
                self.runner.solve(-1, "adapt", small, self._unseen_first(), POLISH).write(small)
        for waiting in self.waiting:
            with counted(f"{waiting.name} on all examples"):
                if waiting.name in CLOSED_FORM:
                    self.runner.solve(waiting.number, waiting.name, small, self.microbatches, STEPS).write(small)
                else:
                    self.runner.train(waiting.train, small, self.microbatches, waiting.schedule)
        return small, RepairOutcome(torch.zeros(0), torch.zeros(0))

    def _unseen_first(self) -> list[Batch]:
        """Return as many microbatches as "adapt" reads, unseen ones first."""
        fitted_ids = {id(microbatch) for microbatch in spread_microbatches(self.fitted, EXAMPLES)}
        ordered_microbatches = [
            *self.held_out,
            *sorted(self.fitted, key=lambda microbatch: id(microbatch) in fitted_ids),
        ]
        sizes = itertools.accumulate((microbatch.size or 1 for microbatch in ordered_microbatches), initial=0)
        return [
            microbatch
            for microbatch, examples_before in zip(ordered_microbatches, sizes, strict=False)
            if examples_before < EXAMPLES
        ]

    def _keep(self, repair: WaitingRepair, candidate: nn.Module) -> None:
        self.state = candidate
        self.kept.append(self._key(repair.number, repair.name))
        self.waiting.append(repair)
        if repair.name == "adapt" and all(waiting.name in CLOSED_FORM for waiting in self.waiting):
            self.adapted, self.waiting = candidate, []


def _before_adapt(repairs: Repairs) -> range:
    """Return the numbers of the repairs that "adapt" follows."""
    return range(max(number for number, (name, _) in enumerate(repairs) if name == "adapt"))
