"""A training loop for users without one of their own: a training killed at any step resumes to the same weights."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import device_of
from secateur.errors import StorageError
from secateur.evaluation.losses import supervised_losses
from secateur.evaluation.outputs import with_named_scores
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.model_calls import call_model
from secateur.graph.random_draws import seeded_generators
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.recovery.distillation import BatchSampler, distillation_objective
from secateur.recovery.training_steps import training_steps
from secateur.training.method import TrainingMethod
from secateur.training.resume import MOST_STEPS, read_training_state, write_training_state
from secateur.utils.rng import generator_for


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """The settings of a training.

    Args:
        learning_rate: the learning rate of Adam.
        batch_size: the number of examples in each step.
        seed: the seed of all random numbers.
        folder: the folder to which each stage writes its state at intervals, and from which it resumes; None for none.
        about: all else that the weights depend on, such that no run resumes from a state of other options.
        seconds: the interval between two states.
        distill: whether the network is trained towards the dense network's outputs, with a tenth of the loss for
            labels; if not, towards labels alone.
    """

    learning_rate: float = 1e-3
    batch_size: int = 64
    seed: int = 0
    folder: Path | None = None
    about: str = ""
    seconds: float = 10.0
    distill: bool = True


class TrainingLoop:
    """Train a model in place towards the dense network's outputs, and towards labels where there are any.

    Args:
        model: the model that is trained.
        dense: the dense network.
        microbatches: the examples.
        optimizer: the optimizer of the model.
        settings: the settings.

    Examples:
        >>> import copy, torch
        >>> from secateur.data.conversion import as_batches
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> examples = as_batches(torch.randn(8, 4))
        >>> loop = TrainingLoop(model, copy.deepcopy(model), examples, optimizer, TrainingSettings())
        >>> loop.run("fixed masks", 3)
        3
    """

    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        microbatches: Sequence[Batch],
        optimizer: torch.optim.Optimizer,
        settings: TrainingSettings,
    ) -> None:
        device = device_of(model)
        self.model, self.dense, self.optimizer, self.settings = model, dense, optimizer, settings
        self.microbatches = [on_device(microbatch, device) for microbatch in microbatches]
        self._sampler = BatchSampler(self.microbatches)
        self._fingerprint = "" if settings.folder is None else self._compute_fingerprint()

    def run(self, stage: str, steps: int, method: TrainingMethod | None = None) -> int:
        """Train for a number of steps, during which the learning rate falls to zero along half a cosine.

        Args:
            stage: the name of this stage, different for each stage of a training; its state file is named after it.
            steps: the number of steps.
            method: the method that changes the weights meanwhile.

        Returns:
            The number of steps that the stage has made, those of earlier runs included.

        Raises:
            DataError: The loss is NaN or infinite.
            StorageError: The state that an earlier run wrote is damaged, or belongs to another training.
        """
        rate = self.settings.learning_rate
        return self._train(
            stage, method, lambda step: step >= steps, lambda step: rate * (1 + math.cos(math.pi * step / steps)) / 2,
            steps, steps,
        )  # fmt: skip

    def until(self, stage: str, is_done: Callable[[], bool], method: TrainingMethod) -> int:
        """Train at the full learning rate until a condition holds; arguments, results and errors otherwise as `run`."""
        return self._train(stage, method, lambda _: is_done(), lambda _: self.settings.learning_rate, MOST_STEPS, None)

    def _train(
        self,
        stage: str,
        method: TrainingMethod | None,
        is_finished: Callable[[int], bool],
        learning_rate_at: Callable[[int], float],
        most_steps: int,
        total: int | None,
    ) -> int:
        modes = {module: module.training for module in self.model.modules()}
        step = first_step = self._resume(stage, method, most_steps)
        last_write = time.monotonic()
        try:
            self.model.train()
            for step in training_steps(
                stage, self.optimizer, lambda number: self._loss_at(stage, number), is_finished,
                learning_rate_at=learning_rate_at, first=first_step, total=total,
            ):  # fmt: skip
                if time.monotonic() - last_write >= self.settings.seconds:
                    self._write(stage, step, method)
                    last_write = time.monotonic()
        finally:
            for module, mode in modes.items():
                module.training = mode
        self._write(stage, step, method)
        return step

    def _loss_at(self, stage: str, step: int) -> Tensor:
        """Return the loss of one step; its random numbers depend on the stage and the step alone."""
        draws = generator_for(self.settings.seed, stage, step)
        batch = self._sampler.sample(self.settings.batch_size, draws)
        has_scores = batch.has_token_scores
        dense_output = with_named_scores(self._dense_output(batch), has_scores) if self.settings.distill else None
        seed = int(torch.randint(2**62, (), generator=draws))  # dropout draws from torch's own generators
        with seeded_generators(seed), torch.enable_grad():
            output = with_named_scores(call_model(self.model, batch), has_scores)
            if self.settings.distill:
                return distillation_objective(output, dense_output, batch.target)
            return supervised_losses(output, batch.target).mean()

    def _dense_output(self, batch: Batch) -> Any:
        with isolated_evaluation(self.dense):
            return call_model(self.dense, batch)

    def _compute_fingerprint(self) -> str:
        """Return a fingerprint of all that the training depends on."""
        settings = self.settings
        return tensor_fingerprint(
            list(self.dense.state_dict().values()), self.microbatches, settings.learning_rate, settings.batch_size,
            settings.seed, settings.about,
        )  # fmt: skip

    def _state_path(self, stage: str) -> Path | None:
        return None if self.settings.folder is None else self.settings.folder / f"{stage}.safetensors"

    def _write(self, stage: str, step: int, method: TrainingMethod | None) -> None:
        path = self._state_path(stage)
        if path is not None:
            write_training_state(path, f"{stage} {self._fingerprint}", step, self.model, self.optimizer, method)

    def _resume(self, stage: str, method: TrainingMethod | None, most_steps: int) -> int:
        """Take over the state of an earlier run, and return the number of its steps."""
        path = self._state_path(stage)
        if path is None:
            return 0
        older = path.with_suffix(".pt")
        if older.exists() and not path.exists():
            raise StorageError(f"{older} is a state that version 0.7 wrote; resume with that version, or remove it")
        if not path.exists():
            return 0
        return read_training_state(path, f"{stage} {self._fingerprint}", self.model, self.optimizer, method, most_steps)
