"""A training loop for those who have none of their own: killed at any step, it goes on to the same weights."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import device_of
from secateur.errors import DataError, StorageError
from secateur.evaluation.losses import supervised
from secateur.graph.contexts import preserved
from secateur.graph.model_calls import call_model
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.recovery.distillation import distillation_step, sample_batch
from secateur.training.resume import MOST_STEPS, Method, take_over, write_state
from secateur.utils.rng import generator_for


@dataclass(frozen=True, eq=False)
class Settings:
    """How to train.

    Args:
        learning_rate: of Adam.
        batch_size: examples drawn for each step.
        seed: of all that is drawn.
        folder: where each stage writes its state now and then, and goes on from; None for nowhere.
        about: whatever else the weights depend on, so that no run goes on from a state of other options.
        seconds: from writing to writing.
        progress: whether to show a progress bar.
        distill: whether the network is trained towards what it gave at first, with a tenth of the loss for labels; if
            not, towards labels alone.
    """

    learning_rate: float = 1e-3
    batch_size: int = 64
    seed: int = 0
    folder: Path | None = None
    about: str = ""
    seconds: float = 10.0
    progress: bool = False
    distill: bool = True


class Loop:
    """Trains a model in place towards what it gave at first, and towards labels where there are any.

    Args:
        model: the model that is trained.
        dense: what it should be like: the network as it was.
        cells: the examples.
        optimizer: that moves the model.
        settings: how.

    Example:
        >>> import copy, torch
        >>> from secateur.data.conversion import as_batches
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> loop = Loop(model, copy.deepcopy(model), as_batches(torch.randn(8, 4)), optimizer, Settings())
        >>> loop.run("fixed masks", 3)
        3
    """

    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        cells: Sequence[Batch],
        optimizer: torch.optim.Optimizer,
        settings: Settings,
    ) -> None:
        device = device_of(model)
        self.model, self.dense, self.optimizer, self.settings = model, dense, optimizer, settings
        self.cells = [on_device(cell, device) for cell in cells]
        self._mark = self._made_of() if settings.folder is not None else ""

    def run(self, stage: str, steps: int, method: Method | None = None) -> int:
        """So many steps, the learning rate falling to nothing along half a cosine.

        Args:
            stage: a name of its own for each run of a training; its file is called so.
            steps: how many.
            method: what changes the weights meanwhile.

        Returns:
            The steps that the stage has taken, those of earlier runs among them.

        Raises:
            DataError: the loss is NaN or infinite.
            StorageError: the state that an earlier run wrote is damaged, or of another training.
        """
        rate = self.settings.learning_rate
        return self._train(
            stage, method, lambda step: step >= steps, lambda step: rate * (1 + math.cos(math.pi * step / steps)) / 2,
            steps,
        )  # fmt: skip

    def until(self, stage: str, done: Callable[[], bool], method: Method) -> int:
        """Steps at the full learning rate until something is reached; otherwise as `run`."""
        return self._train(stage, method, lambda _: done(), lambda _: self.settings.learning_rate, MOST_STEPS)

    def _train(
        self,
        stage: str,
        method: Method | None,
        ends: Callable[[int], bool],
        rate: Callable[[int], float],
        most: int,
    ) -> int:
        flags = {module: module.training for module in self.model.modules()}
        begun = step = self._resumed(stage, method, most)
        written = time.monotonic()
        try:
            self.model.train()
            with tqdm(desc=stage, initial=begun, leave=False, disable=None if self.settings.progress else True) as bar:
                for step in itertools.count(begun):
                    if ends(step):
                        break
                    for group in self.optimizer.param_groups:
                        group["lr"] = rate(step)
                    self._step(stage, step + 1)
                    bar.update()
                    if time.monotonic() - written >= self.settings.seconds:
                        self._write(stage, step + 1, method)
                        written = time.monotonic()
        finally:
            for module, flag in flags.items():
                module.training = flag
        self._write(stage, step, method)
        return step

    def _step(self, stage: str, number: int) -> None:
        """One batch; what is drawn depends on the stage and the number alone."""
        draws = generator_for(self.settings.seed, stage, number)
        batch = sample_batch(self.cells, self.settings.batch_size, draws)
        wanted = self._dense_output(batch) if self.settings.distill else None
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(int(torch.randint(2**62, (), generator=draws)))  # dropout draws from the global one
            output = call_model(self.model, batch)
            distill = self.settings.distill
            loss = (
                distillation_step(output, wanted, batch.target) if distill else supervised(output, batch.target).mean()
            )
            if not bool(torch.isfinite(loss)):
                raise DataError(f"{stage}: the loss is {float(loss)} at step {number}; lower the learning rate")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _dense_output(self, batch: Batch) -> Any:
        with preserved(self.dense):
            return call_model(self.dense, batch)

    def _made_of(self) -> str:
        """A mark of what a training depends on."""
        settings = self.settings
        return tensor_fingerprint(
            list(self.dense.state_dict().values()), self.cells, settings.learning_rate, settings.batch_size,
            settings.seed, settings.about,
        )  # fmt: skip

    def _file(self, stage: str) -> Path | None:
        return None if self.settings.folder is None else self.settings.folder / f"{stage}.safetensors"

    def _write(self, stage: str, step: int, method: Method | None) -> None:
        path = self._file(stage)
        if path is not None:
            write_state(path, f"{stage} {self._mark}", step, self.model, self.optimizer, method)

    def _resumed(self, stage: str, method: Method | None, most: int) -> int:
        """The steps that an earlier run has taken, its state taken over."""
        path = self._file(stage)
        if path is None:
            return 0
        older = path.with_suffix(".pt")
        if older.exists() and not path.exists():
            raise StorageError(f"{older} is a state that version 0.7 wrote; go on with that version, or remove it")
        if not path.exists():
            return 0
        return take_over(path, f"{stage} {self._mark}", self.model, self.optimizer, method, most)
